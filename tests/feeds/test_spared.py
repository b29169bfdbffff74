"""Which names are spared: popular ones and all under them, less what is exempt; and whose addresses are spared for others."""

from __future__ import annotations

import pytest

from blocker.feeds.routes import Reason
from blocker.feeds.spared import Spared

SPARED = Spared(
    popular=frozenset({"popular.example", "blogspot.com", "amazonaws.com", "duckdns.org", "news.example"}),
    exempt=frozenset({"duckdns.org", "archive.news.example"}),
)


@pytest.mark.parametrize(
    ("name", "popular", "own"),
    [
        ("popular.example", True, True),
        ("www.popular.example", True, True),
        ("a.b.popular.example", True, True),
        ("unpopular.example", False, False),
        ("example", False, False),
        ("popular.example.test", False, False),
        ("news.example", True, True),
        ("live.news.example", True, True),
        # Exempt: the nearest name counts.
        ("archive.news.example", False, None),
        ("old.archive.news.example", False, None),
        # Under these anybody may have a name and say where it is.
        ("blogspot.com", True, True),
        ("site.blogspot.com", True, False),
        ("www.site.blogspot.com", True, False),
        ("s3.amazonaws.com", True, True),
        ("bucket.s3.amazonaws.com", True, False),
        ("home.duckdns.org", False, None),
        ("192.0.2.1", False, False),
        ("[2001:db8::1]", False, False),
    ],
)
def test_which_names_are_spared(name: str, popular: bool, own: bool | None) -> None:
    assert SPARED.reason(name) is (Reason.POPULAR if popular else None)
    if own is not None:
        assert SPARED.speaks_for_itself(name) is own


def test_names_are_sorted() -> None:
    names = {"1": "popular.example", "2": "site.blogspot.com", "3": "other.example", "4": "en.popular.example"}
    refused, spared = SPARED.sort(names)
    assert refused == dict.fromkeys("124", Reason.POPULAR)
    assert spared == {"1": "popular.example", "4": "en.popular.example"}
