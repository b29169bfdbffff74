"""The list formats, one module each, and how to find one by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from blocker.errors import SourceError
from blocker.ingest.formats import (
    adblock,
    bpjm,
    csv,
    domain,
    hosts,
    jsonl,
    rpz,
    squidguard_domains,
    squidguard_urls,
    url,
)
from blocker.ingest.formats._format import Format, FormatOptions, ListParser

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FORMATS", "Format", "FormatOptions", "ListParser", "find_format"]

FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        module.FORMAT.name: module.FORMAT
        for module in (url, domain, hosts, csv, jsonl, rpz, adblock, squidguard_domains, squidguard_urls, bpjm)
    }
)


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        SourceError: There is none; the message lists those that exist.
    """
    try:
        return FORMATS[name]
    except KeyError:
        raise SourceError(f"format {name!r} is unknown; known: {', '.join(FORMATS)}") from None
