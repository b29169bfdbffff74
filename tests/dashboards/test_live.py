"""Every query of every panel, asked of a real Prometheus that scrapes real nodes: an answer, and the right one."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from blocker.hits.calendar import WEEKDAYS
from tests.dashboards import past
from tests.dashboards.boards import NAMES, load, panels, repeated_by
from tests.dashboards.scene import Scene
from tests.e2e.processes import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.dashboards.prometheus_server import Series

DAY = 24 * past.HOUR
BLOCKS = 30


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Scene(tmp_path_factory.mktemp("scene")) as made:
        made.ask(BLOCKS)
        made.scraped()
        yield made


def answers(scene: Scene, board: str, title: str, **one: str) -> dict[str, list[Series]]:
    """What a panel shows, by its queries' letters."""
    [panel] = [panel for panel in panels(load(board)) if panel["title"] == title]
    window = scene.window(board)
    found = {}
    for query in panel["targets"]:
        text = window.filled(query["expr"], panel, one or None)
        if query.get("instant"):
            found[query["refId"]] = scene.prometheus.instant(text, window.end)
        else:
            found[query["refId"]] = scene.prometheus.range(text, window.end, window.seconds, window.step(panel))
    return found


def newest(scene: Scene, board: str, title: str, label: str, *, letter: str = "A", **one: str) -> dict[str, float]:
    """The newest value of each series of a query, by a label."""
    return {series.labels.get(label, ""): series.last for series in answers(scene, board, title, **one)[letter]}


def newest_of_two(
    scene: Scene, board: str, title: str, labels: tuple[str, str], **one: str
) -> dict[tuple[str, str], float]:
    """The same by two labels."""
    first, second = labels
    found = answers(scene, board, title, **one)["A"]
    return {(series.labels[first], series.labels[second]): series.last for series in found}


def figure(scene: Scene, board: str, title: str) -> float:
    """A panel's only value."""
    [series] = answers(scene, board, title)["A"]
    return series.last


@pytest.mark.parametrize("board", NAMES)
def test_every_query_has_an_answer(scene: Scene, board: str) -> None:
    window = scene.window(board)
    assert all(window.values.values())
    for panel in panels(load(board)):
        variable = repeated_by(load(board), panel)
        for value in window.values[variable] if variable else [""]:
            if board == "hits" and value == "pages":
                continue  # its list is one of the nodes', of which nothing is known in the weeks before
            shown = answers(scene, board, panel["title"], **({variable: value} if variable else {}))
            assert len(shown) == len(panel["targets"])
            assert all(shown.values()), f"{panel['title']} {value}: {shown}"


def test_operations_shows_what_the_nodes_do(scene: Scene) -> None:
    titles = {
        "Nodes scraped": 2, "Nodes without store": 0, "Canaries failing": 0, "Stale lists": 0, "Versions waiting": 1,
        "Lists nodes disagree on": 1,
    }  # fmt: skip
    until(lambda: {title: figure(scene, "operations", title) for title in titles} == titles)
    first, second = scene.targets
    serials = newest_of_two(scene, "operations", "Serial of each list on each node", ("list", "instance"))
    assert (serials["police", first], serials["police", second], serials["pages", first]) == (2, 1, 1)
    behind = newest_of_two(scene, "operations", "Serials behind the store", ("list", "instance"))
    assert behind["police", first] == behind["police", second] == 0

    verdicts = newest(scene, "operations", "Decisions in the hour before, by verdict", "verdict")
    assert verdicts["allow"] + verdicts["block"] >= 2 * BLOCKS, "and canaries"
    assert {series.labels["gateway"] for series in answers(scene, "operations", "Decisions by gateway")["A"]} == {
        "check", "control", "dns", "icap", "spoe",
    }  # fmt: skip
    times = answers(scene, "operations", "Time of a decision")
    known = [[value for _, value in times[letter][0].values if not math.isnan(value)] for letter in "ABC"]
    assert len(known[0]) > 0
    for half, most, nearly_all in zip(*known, strict=True):
        assert 0 < half <= most <= nearly_all <= 0.01
    here = answers(scene, "operations", "$gateway: decisions by node", gateway="check")["A"]
    connections = answers(scene, "operations", "$gateway: connections", gateway="check")["A"]
    assert sorted(series.labels["instance"] for series in connections) == sorted(scene.targets), "one line a node"
    made = per_instance(here, since=0)
    for _ in range(5):  # where a scrape took too long, what came meanwhile is not seen
        if min(made.values()) >= BLOCKS * 0.7:
            break
        since = time.time()
        scene.ask(BLOCKS)
        scene.scraped(more=6)
        made = per_instance(answers(scene, "operations", "$gateway: decisions by node", gateway="check")["A"], since)
    # Nobody else asks the second, which has no canaries; a rate over four seconds has rough ends.
    assert BLOCKS * 0.7 <= made[second] <= BLOCKS * 1.5
    assert made[first] >= BLOCKS * 0.7


def per_instance(shown: Sequence[Series], since: float) -> dict[str, float]:
    """Decisions of each node: the rates of each second added up."""
    return {
        series.labels["instance"]: sum(value for moment, value in series.values if moment >= since) for series in shown
    }


def test_operations_shows_store_canaries_and_load(scene: Scene) -> None:
    first, second = scene.targets
    assert newest(scene, "operations", "Store", "instance") == {first: 1, second: 1}
    canaries = {("pages", gateway): 1 for gateway in ("check", "control", "dns", "icap", "spoe")}
    until(lambda: newest_of_two(scene, "operations", "Canaries", ("list", "gateway")) == canaries)
    ages = newest(scene, "operations", "Since canaries were looked at", "list")
    assert 0 <= ages["pages"] < 60
    assert newest(scene, "operations", "Follower lag", "instance") == {first: 0, second: 0}
    assert newest(scene, "operations", "Hours of hits that the store lacks", "instance") == {first: 0, second: 0}
    shares = newest(scene, "operations", "Connections of those that may be", "gateway")
    assert shares.keys() == {"check", "icap", "spoe", "dns"}
    assert all(0 <= share < 0.1 for share in shares.values())
    processes = {(first, "node"), (second, "node"), (second, "worker-0"), (second, "worker-1")}
    for title in ("Worst delay of an event loop", "Processor", "Memory"):
        assert newest_of_two(scene, "operations", title, ("instance", "process")).keys() == processes, title
    assert min(newest_of_two(scene, "operations", "Memory", ("instance", "process")).values()) >= 16 * 2**20
    assert newest(scene, "operations", "Workers missing", "instance") == {first: 0, second: 0}
    zones = newest_of_two(scene, "operations", "Names in each zone", ("zone", "effect"))
    assert zones["police", "block"] == 0, "its lists have pages, and no host whole"
    assert newest(scene, "operations", "Zones not up to date", "zone") == {"police": 0}
    known = "For how long secondaries have been behind"
    assert list(newest(scene, "operations", known, "zone").values()) == [0], "it has the newest"
    assert max(newest(scene, "operations", "Since zones were compared with the lists", "zone").values()) < 60
    mine = f"127.0.0.1:{scene.resolver}"
    until(lambda: newest(scene, "operations", "Upstreams", "upstream").get(mine) == 1)
    assert sorted(newest(scene, "operations", "Upstreams", "upstream").values()) == [0, 1]
    assert newest(scene, "operations", "Time of upstreams' answers", "upstream").keys() == {
        f"127.0.0.1:{scene.resolver}"
    }
    assert set(newest(scene, "operations", "Questions waiting, of those that may", "instance").values()) == {0}
    assert newest(scene, "operations", "Feeds", "instance", letter="A") == {first: 1}
    assert newest(scene, "operations", "Sessions with routers", "instance") == {first: 1}
    failing = newest(scene, "operations", "Failing share of each resolver", "resolver")
    assert [resolver.partition(":")[0] for resolver in failing] == ["127.0.0.1"]


def test_lists_shows_what_is_enforced_and_what_waits(scene: Scene) -> None:
    def column(letter: str) -> dict[str, float]:
        return newest(scene, "lists", "Lists", "list", letter=letter)

    assert column("A") == {"police": 51, "pages": 3, "trial": 1}, "the most of any node"
    assert column("B") == {"police": 2, "pages": 1, "trial": 1}
    assert all(0 <= age < 300 for age in column("C").values())
    assert column("D").keys() == {"pages", "trial", "broken"} & column("C").keys()
    results = column("E")
    assert results["broken"] in (4, 5), "refused, or failed"
    assert results["pages"] in (0, 1, 2)
    assert results["trial"] in (0, 1, 2)
    assert column("F")["police"] == 1
    assert column("F")["pages"] == 0
    assert column("G") == {"pages": 1}
    assert 86_400 < column("H")["pages"] <= 2 * 86_400
    first = scene.targets[0]
    for letter, change in (("A", 0), ("B", -5)):
        title = "Rules added and removed by the newest serial"
        assert newest(scene, "lists", title, "list", letter=letter, node=first)["police"] == change
    published = newest(scene, "lists", "Serials published in a day", "list")
    assert (published["police"], published["pages"]) == (1, 0)
    assert 0 <= newest(scene, "lists", "Waiting since", "list")["police"] < 600
    assert newest(scene, "lists", "Files of sources that cannot be used", "instance") == {first: 1}


def shown(scene: Scene, since: int, until_: int, names: tuple[str, ...] = tuple(past.LISTS)) -> list[past.Cell]:
    """The hours that were released within a time."""
    found = [one for one in past.cells(scene.past_end) if one.list in names]
    return [one for one in found if since < one.began + past.HOUR + past.SCRAPED <= until_]


def test_hits_shows_the_hours_of_the_week_as_they_were(scene: Scene) -> None:
    window = scene.window("hits")
    end, began = int(window.end), int(window.end) - window.seconds
    for name in past.LISTS:
        wanted = Counter[tuple[str, str]]()
        for one in shown(scene, began, end, (name,)):
            wanted[one.place] += one.shown
        found = newest_of_two(scene, "hits", "Requests for pages of $list", ("day", "hour"), list=name)
        assert {(day[2:], hour): value for (day, hour), value in found.items()} == {
            (day, f"{hour:02d}"): wanted[day, f"{hour:02d}"] for day in WEEKDAYS for hour in range(24)
        }, name
        assert max(wanted.values()) > 8
    order = sorted({day for day, _ in found})
    assert order == ["1 mon", "2 tue", "3 wed", "4 thu", "5 fri", "6 sat", "7 sun"]


def test_hits_shows_weeks_and_shares(scene: Scene) -> None:
    window = scene.window("hits")
    end, began = int(window.end), int(window.end) - window.seconds
    chosen = shown(scene, began, end)
    total = sum(one.shown for one in chosen)
    assert figure(scene, "hits", "Requests blocked, time chosen") == total
    this = sum(one.shown for one in shown(scene, end - 7 * DAY, end))
    before = sum(one.shown for one in shown(scene, end - 14 * DAY, end - 7 * DAY))
    assert this != before
    assert figure(scene, "hits", "Last 7 days") == this
    assert figure(scene, "hits", "The 7 days before") == before
    assert figure(scene, "hits", "Change") == pytest.approx(this / before - 1)
    shares: dict[str, dict[str, float]] = {label: defaultdict(float) for label in ("hour", "day", "list")}
    for one in chosen:
        moment = datetime.fromtimestamp(one.began, UTC)
        shares["hour"][f"{moment.hour:02d}"] += one.shown / total
        shares["day"][f"{moment.isoweekday()} {WEEKDAYS[moment.weekday()]}"] += one.shown / total
        shares["list"][one.list] += one.shown / total
    for title, label in (("hour of the day", "hour"), ("weekday", "day"), ("list", "list")):
        found = newest(scene, "hits", f"Share by {title}", label)
        assert {name: value for name, value in found.items() if value} == pytest.approx(
            {name: share for name, share in shares[label].items() if share}
        )
        assert sum(found.values()) == pytest.approx(1)
    weekly = answers(scene, "hits", "Requests in the seven days before, by list")["A"]
    [police] = [series for series in weekly if series.labels["list"] == "police"]
    for at, value in ((int(when), value) for when, value in police.values):
        assert value == sum(one.shown for one in shown(scene, at - 7 * DAY, at, ("police",)))
    shadow = newest(scene, "hits", "Requests by shadow list", "list")
    assert shadow["trial"] == sum(one.shown for one in shown(scene, began, end, tuple(past.SHADOW)))


def test_a_store_that_is_away_is_seen(scene: Scene) -> None:
    """The last one: it ends the store."""
    scene.redis.stop()
    until(lambda: figure(scene, "operations", "Nodes without store") == 2)
    scene.scraped()
    assert set(newest(scene, "operations", "Store", "instance").values()) == {0}
    until(lambda: min(newest(scene, "operations", "Follower lag", "instance").values()) > 1)
    assert max(newest(scene, "operations", "Failed looks at the store", "instance").values()) > 0
    assert scene.first.ask() == "block", "decisions go on"
    assert newest(scene, "lists", "Lists", "list", letter="F")["police"] == 1, "what was known stays"
