"""An entry of a table: named fields that make a rule with its metadata. Shared by `csv` and `jsonl`."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final, get_args

from blocker.errors import InvalidRule
from blocker.ingest.formats._format import Column, FormatOptions
from blocker.ingest.formats._lines import RuleLineReader
from blocker.rules import check_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS: Final[tuple[Column, ...]] = get_args(Column)
OPTIONS: Final = frozenset({"bare", "trailing_slash", "columns"})
# Free text in every node's table would be carried for nothing; this is a long name of a category.
MAX_CATEGORY_BYTES = 256


class EntryReader(RuleLineReader):
    """A `LineReader` for entries with named fields."""

    def __init__(self, options: FormatOptions) -> None:
        super().__init__(options.bare or "host", options.trailing_slash or "prefix")
        self.given: Mapping[Column, str] = options.columns or {}
        self.names: dict[Column, str] = {column: self.given.get(column, column) for column in COLUMNS}
        # Whoever lists pages may keep the path where nobody looks for it: a host alone must be meant.
        self.hosts_stand_alone = "host" in self.given

    def add_entry(self, fields: Mapping[Column, str]) -> None:
        """Add one entry; a field that is empty or missing says nothing.

        Raises:
            InvalidRule: A field is malformed.
        """
        reference = fields.get("reference", "").strip()
        if reference:
            if not reference.isprintable():
                raise InvalidRule("reference holds a control character or half a surrogate pair")
            check_reference(reference)
        metadata = {}
        if category := fields.get("category", "").strip():
            if len(category.encode("utf-8", "surrogatepass")) > MAX_CATEGORY_BYTES:
                raise InvalidRule(f"category is longer than {MAX_CATEGORY_BYTES} bytes")
            if not category.isprintable():
                raise InvalidRule("category holds a control character or a line end")
            metadata["category"] = category
        if added := fields.get("added", "").strip():
            metadata["added"] = day_of(added, later=False)
        if expires := fields.get("expires", "").strip():
            metadata["expires"] = day_of(expires, later=True)
        text = _json(metadata) if metadata else ""
        self.add(self._address(fields), "url", reference, text)

    def _address(self, fields: Mapping[Column, str]) -> str:
        if "url" in fields:
            url = fields["url"].strip()
            if "\n" in url or "\r" in url:
                raise InvalidRule("url holds a line end")
            return url
        host, path = fields.get("host", "").strip(), fields.get("path", "").strip()
        if not host or not ("path" in fields or self.hosts_stand_alone):
            raise InvalidRule("entry has no url, nor a host with its path")
        if any(sign in host for sign in "/\\?#@ \t"):
            raise InvalidRule("a host has no scheme, port, user, path or blank")
        if path and path[0] not in "/?":
            raise InvalidRule("a path starts with a slash")
        return host + path


def _json(metadata: Mapping[str, str]) -> str:
    return json.dumps(metadata, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=4096)
def day_of(text: str, *, later: bool) -> str:
    """The day (UTC) of an ISO 8601 date or time, as `date.isoformat` writes it.

    Args:
        text: Date or date with time; without an offset it is UTC.
        later: For a time of day, take the next day: an entry that holds until noon holds on that day.

    Raises:
        InvalidRule: It is no date.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC)
        day: date = moment.date()
        if later and moment.time() != time():
            day += timedelta(days=1)
    except (ValueError, OverflowError):
        raise InvalidRule("date is not ISO 8601 (2026-01-31 or 2026-01-31T12:00:00Z)") from None
    return day.isoformat()
