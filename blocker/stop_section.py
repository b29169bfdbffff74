"""The section of the stop page: what the operator says on it, for each list and in each language."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from blocker.section import Frozen, Link, Name

Language = Literal["en", "sv", "de", "fr", "es"]  # of the stop page


class StopTexts(Frozen):
    """What the operator says on the stop page, in one language. Addresses in it become links."""

    reason: str = Field(
        "", max_length=2000, description="Why. Free text; empty: that it is on a list, in each language."
    )
    law: str = Field("", max_length=2000, description="Under which law or agreement. Free text; empty leaves it out.")
    complaint: str = Field("", max_length=2000, description="How to complain. Free text; empty leaves it out.")
    help: str = Field("", max_length=2000, description="Where to get help. Free text; empty leaves it out.")


class ListTexts(StopTexts):
    """The same for one list; what is empty here is taken from the next table."""

    authority: str = Field(
        "", max_length=200, description="Who keeps the list. Free text; empty leaves it out. Default empty."
    )


class ListPageSettings(ListTexts):
    """The stop page of one list, as in [stop_page.lists.police].

    Each text is the first that is not empty: the list's in the page's language, the list's own, the general one in the
    page's language, the general one.
    """

    authority_url: Link | None = Field(
        None, description="Address of who keeps the list; ASCII. Shown with `authority` only. Default none."
    )
    languages: dict[Language, ListTexts] = Field(
        default_factory=dict,
        description="The list's texts by language, as in [stop_page.lists.police.languages.sv]: en, sv, de, fr or es.",
    )


class StopPageSettings(StopTexts):
    """What the stop page says about who blocks."""

    operator: str = Field(
        "", max_length=200, description="Who stops the access. Free text; empty: your provider, in each language."
    )
    operator_url: Link = Field(
        "https://operator.example/",
        description='Address in `Link: …; rel="blocked-by"` (RFC 7725 section 4). ASCII: a name in its xn-- form.',
    )
    text_language: str = Field(
        "",
        max_length=35,
        pattern=r"^([a-z]{2,3}(-[A-Za-z0-9]{2,8})*)?$",
        description="Language tag (RFC 5646) of the texts outside `languages`, for the voice that reads them in a page "
        "of another language. Default empty: that of each page.",
    )
    languages: dict[Language, StopTexts] = Field(
        default_factory=dict, description="The texts by language, as in [stop_page.languages.sv]: en, sv, de, fr or es."
    )
    lists: dict[Name, ListPageSettings] = Field(
        default_factory=dict, description="The pages of lists that have texts of their own, by the list's name."
    )
