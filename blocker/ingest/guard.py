"""What refuses an update that was fetched whole but cannot be meant: pure, told of counts and never of entries."""

from __future__ import annotations

from blocker.errors import UpdateRefused


def refuse_retired(*, retired: bool) -> None:
    """Refuse to bring a list back that a person has withdrawn.

    Raises:
        UpdateRefused: It is retired.
    """
    if retired:
        raise UpdateRefused("the list is retired; remove its source, or publish it by hand to bring it back")


def refuse_bad_share(*, good: int, bad: int, max_share: float) -> None:
    """Refuse a file of which too much is no entry: an error page, another format, another list.

    Args:
        good: Entries that were read, repeated ones counted.
        bad: Lines that are no entry. Comments and blank lines count as neither.
        max_share: Largest share of bad ones among both.

    Raises:
        UpdateRefused: The share is above it.
    """
    if bad and bad > max_share * (good + bad):
        raise UpdateRefused(
            f"{bad} of {good + bad} entries are bad ({bad / (good + bad):.2%}), max_bad_share allows {max_share:.2%}; "
            "check that the format is right, or raise max_bad_share"
        )


def refuse_empty(*, entries: int, before: int) -> None:
    """Refuse to empty a list that has entries: far more often a fault at the source than meant.

    Args:
        entries: Rules in the update.
        before: Rules in the list now; 0 for a new one.

    Raises:
        UpdateRefused: The update has none and the list has some.
    """
    if not entries and before:
        raise UpdateRefused(f"the update has no entries, the list has {before}; to empty it, publish it by hand")
