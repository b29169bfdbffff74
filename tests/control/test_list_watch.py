"""What the store says of lists, as metrics: serials, looks at sources, what waits for a second person."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, get_args

import pytest

from blocker.control import list_watch
from blocker.control.list_watch import ListWatch
from blocker.errors import StoreUnavailable
from blocker.ingest.update import Status
from blocker.store.draft import Draft
from blocker.store.manifest import Head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocker.store.redis import Store

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()
LISTS = {"police", "trial"}
# Metric → kind, labels and their values.
CONTRACT: Mapping[str, tuple[str, Mapping[str, set[str]]]] = {
    "blocker_list_head_serial": ("gauge", {"list": LISTS}),
    "blocker_list_changed_rules": ("gauge", {"list": LISTS, "change": {"added", "removed"}}),
    "blocker_list_age_limit_seconds": ("gauge", {"list": LISTS}),
    "blocker_list_expiry_seconds": ("gauge", {"list": LISTS}),
    "blocker_pull_result": ("gauge", {"list": LISTS, "result": set(get_args(Status))}),
    "blocker_pull_age_seconds": ("gauge", {"list": LISTS}),
    "blocker_proposals_waiting": ("gauge", {"list": LISTS}),
    "blocker_proposal_age_seconds": ("gauge", {"list": LISTS}),
    "blocker_source_errors": ("gauge", {}),
}


class Books:
    """A store's answers, which a test writes; the real one is asked in `tests/dashboards`."""

    def __init__(self) -> None:
        self.away = False
        self.manifests = 0
        self.found = {"police": Head(list="police", serial=3, digest="0" * 64)}
        self.proposed: dict[str, Draft] = {}
        self.states = {"police": {"last_status": "refused", "last_at": str(NOW - 30), "last_detail": "secret"}}

    async def heads(self) -> dict[str, Head]:
        if self.away:
            raise StoreUnavailable("away")
        return dict(self.found)

    async def manifest(self, _name: str, serial: int) -> Any:  # noqa: ANN401 - of a manifest, what is asked for
        self.manifests += 1
        return type("M", (), {"retired": False, "added": 7, "removed": serial})

    async def drafts(self, _shelf: str) -> dict[str, Draft]:
        return self.proposed

    async def source_state(self, name: str) -> dict[str, str]:
        return self.states.get(name, {})

    async def beats(self) -> tuple[()]:
        return ()


def watch(books: Books, *, ingests: bool = True) -> ListWatch:
    async def opened() -> Store:
        return books  # type: ignore[return-value]

    return ListWatch(
        opened, lambda: ("police",), lambda: {"police": 100.0, "trial": 5.0},
        lambda: {"police": date(2026, 11, 28)} if ingests else None,
        lambda: ("one is wrong",) if ingests else None, lambda: NOW,
    )  # fmt: skip


def values(made: ListWatch) -> dict[tuple[str, ...], float]:
    return {row: value for family in made.families() for row, value in family.rows}


def waiting(name: str, state: Any = "waiting") -> Draft:  # noqa: ANN401 - a state
    return Draft(
        id="1", list=name, epoch="0" * 32, base=0, action="block", mode="enforce", path_case="sensitive",
        www_alias=False, entries=1, added=1, removed=0, rules_digest="0" * 64, layers=(), created=NOW - 60.0,
        author="a", person="A", state=state,
    )  # fmt: skip


async def test_names_kinds_and_labels_are_the_documented_ones() -> None:
    books = Books()
    books.proposed = {"trial": waiting("trial")}
    made = watch(books)
    assert await made.look()
    families = {family.name: family for family in made.families()}
    assert {name: family.kind for name, family in families.items()} == {n: kind for n, (kind, _) in CONTRACT.items()}
    for name, family in families.items():
        assert family.labels == tuple(CONTRACT[name][1])
        assert family.rows, name
        for (_, *labels), _value in family.rows:
            assert all(one in allowed for one, allowed in zip(labels, CONTRACT[name][1].values(), strict=True))
        assert "secret" not in family.text()
        assert f"`{name}`" in (list_watch.__doc__ or "")


async def test_every_figure_is_what_the_store_says() -> None:
    books = Books()
    books.proposed = {"trial": waiting("trial"), "police": waiting("police", "rejected")}
    made = watch(books)
    assert await made.look()
    found = values(made)
    assert found["blocker_list_head_serial", "police"] == 3
    assert found["blocker_list_changed_rules", "police", "added"] == 7
    assert found["blocker_list_changed_rules", "police", "removed"] == 3
    assert found["blocker_list_age_limit_seconds", "police"] == 100
    assert found["blocker_list_expiry_seconds", "police"] == 12 * 3600, "UTC days"
    results = {row[2]: value for row, value in found.items() if row[:2] == ("blocker_pull_result", "police")}
    assert results == {result: float(result == "refused") for result in get_args(Status)}
    assert found["blocker_pull_age_seconds", "police"] == 30
    assert found["blocker_proposals_waiting", "trial"] == 1, "a list that was never published can wait as well"
    assert found["blocker_proposals_waiting", "police"] == 0, "what was rejected waits no more"
    assert found["blocker_proposal_age_seconds", "trial"] == 60
    assert ("blocker_proposal_age_seconds", "police") not in found
    assert found[("blocker_source_errors",)] == 1


async def test_while_the_store_is_away_what_was_known_stays() -> None:
    books = Books()
    made = watch(books)
    assert values(made).keys() == {("blocker_source_errors",)}, "nothing is known yet"
    assert await made.look()
    known = values(made)
    books.away = True
    assert not await made.look()
    assert values(made) == known


async def test_a_manifest_is_read_once_a_serial() -> None:
    books = Books()
    made = watch(books)
    for _ in range(3):
        assert await made.look()
    assert books.manifests == 1
    books.found["police"] = Head(list="police", serial=4, digest="0" * 64)
    assert await made.look()
    assert books.manifests == 2
    assert values(made)["blocker_list_changed_rules", "police", "removed"] == 4


async def test_the_number_of_lists_is_bounded() -> None:
    books = Books()
    books.found = {f"l{number:04d}": Head(list=f"l{number:04d}", serial=1, digest="0" * 64) for number in range(300)}
    made = watch(books)
    assert await made.look()
    shown = [row for row in values(made) if row[0] == "blocker_list_head_serial"]
    assert len(shown) == 128


@pytest.mark.parametrize("name", ["blocker_source_errors", "blocker_list_expiry_seconds"])
async def test_a_node_that_does_not_ingest_knows_less(name: str) -> None:
    made = watch(Books(), ingests=False)
    assert await made.look()
    assert not [row for row in values(made) if row[0] == name]
