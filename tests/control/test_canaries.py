"""Canaries, asked for through the real socket of a control plane: what is found, told, and never counted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from blocker import Matcher, Policy
from blocker.control.canary_probe import HttpProbe
from blocker.gateways.canaries import Answer, Canaries, Reason
from blocker.rules import Verdict
from blocker.sections import CanarySettings, PolicySettings
from blocker.settings import Settings

if TYPE_CHECKING:
    import io

    from tests.control.conftest import ControlNode

PAGE = "http://zzcanaryzz.example/test/page.html"
HOST = "http://zzcanaryzz.test/"


def canaries(node: ControlNode, *urls: str) -> Canaries:
    watched = Canaries(
        node.engine, node.follower,
        Settings(canaries={"police": CanarySettings(blocked=urls or (PAGE,))}), clock=node.clock, patience=60,
    )  # fmt: skip
    watched.register(HttpProbe(node.server, ("default",)))
    return watched


async def reason(watched: Canaries) -> Reason | None:
    await watched.look()
    (state,) = watched.states
    assert (state.list, state.gateway) == ("police", "control")
    return state.reason


@pytest.mark.parametrize(
    ("lists", "found"),
    [
        ({"police": [PAGE]}, None),
        ({"police": ["http://zzcanaryzz.example/test/"]}, None),
        ({"police": [PAGE], "other": [PAGE]}, None),
        ({"other": [PAGE], "police": [PAGE]}, None),
        ({"police": ["http://other.example/"]}, Reason.NOT_BLOCKED),
        ({"other": ["http://other.example/"]}, Reason.NOT_BLOCKED),
        ({"other": [PAGE]}, Reason.WRONG_LIST),
        ({"other": [PAGE], "police": ["http://zzcanaryzz.example/test/"]}, Reason.WRONG_LIST),
        ({"police": ["http://zzcanaryzz.example/"]}, Reason.OVER_BLOCKED),
        ({"police": [PAGE], "other": ["http://*.zzcanaryzz.example"]}, None),
        ({"police": [PAGE, "http://zzcanaryzz.example/"]}, Reason.OVER_BLOCKED),
    ],
)
async def test_what_is_found(node: ControlNode, lists: dict[str, list[str]], found: Reason | None) -> None:
    node.follower.matcher = Matcher.build(lists)
    assert await reason(canaries(node)) is found


async def test_one_for_a_whole_host(node: ControlNode) -> None:
    node.follower.matcher = Matcher.build({"police": [HOST]})
    assert await reason(canaries(node, HOST)) is None
    node.follower.matcher = Matcher.build({"police": [f"{HOST}page"]})
    assert await reason(canaries(node, HOST)) is Reason.NOT_BLOCKED


async def test_new_zealand_2021_after_a_migration_half_a_list_is_there(node: ControlNode, logged: io.StringIO) -> None:
    """Serials and counters go on as before; only asking shows it."""
    before = [PAGE, *(f"http://site{number}.example/" for number in range(1000))]
    node.follower.matcher = Matcher.build({"police": before}, serials={"police": 7})
    watched = canaries(node)
    assert await reason(watched) is None
    node.clock.now += 60
    node.follower.matcher = Matcher.build({"police": before[400:]}, serials={"police": 8})
    assert await reason(watched) is Reason.NOT_BLOCKED
    (state,) = watched.states
    assert (state.last_ok, state.last_failed, state.checked) == (node.clock.now - 60, node.clock.now, node.clock.now)
    assert logged.getvalue().count("canary failed") == 1
    await watched.look()
    assert logged.getvalue().count("canary failed") == 1, "told once, not every minute"
    node.follower.matcher = Matcher.build({"police": before})
    assert await reason(watched) is None
    assert (logged.getvalue().count("canaries ok"), logged.getvalue().count("canary ok")) == (1, 1)


async def test_a_list_on_trial_must_be_named(node: ControlNode) -> None:
    node.follower.matcher = Matcher.build({"police": [PAGE]}, shadow=("police",))
    assert await reason(canaries(node)) is None
    node.follower.matcher = Matcher.build({"police": [HOST]}, shadow=("police",))
    assert await reason(canaries(node)) is Reason.NOT_BLOCKED
    node.follower.matcher = Matcher.build({"police": [PAGE, "http://zzcanaryzz.example/"]}, shadow=("police",))
    assert await reason(canaries(node)) is Reason.OVER_BLOCKED


async def test_every_policy_that_has_the_list_is_asked(node: ControlNode) -> None:
    chosen = {"with": PolicySettings(lists={"police": None}), "without": PolicySettings(lists={"other": None})}
    policies = [Policy(name="with", lists={"police": "enforce"}), Policy(name="without", lists={"other": None})]
    node.follower.matcher = Matcher.build({"police": [PAGE], "other": [HOST]}, policies=policies)
    watched = Canaries(
        node.engine, node.follower,
        Settings(canaries={"police": CanarySettings(blocked=(PAGE,))}, policies=chosen), clock=node.clock,
    )  # fmt: skip
    watched.register(HttpProbe(node.server, ("without",)))
    await watched.look()
    assert watched.states == (), "nothing is expected where the list is not used"
    watched.register(HttpProbe(node.server, ("with", "default")))
    assert await reason(watched) is None


async def test_a_gateway_that_does_not_answer(node: ControlNode) -> None:
    node.follower.matcher = Matcher.build({"police": [PAGE]})
    watched = canaries(node)
    node.follower.matcher = None
    assert await reason(watched) is Reason.NO_ANSWER
    node.follower.matcher = Matcher.build({"police": [PAGE]})
    assert await reason(watched) is None
    await node.server.stop()
    assert await reason(watched) is Reason.NO_ANSWER


class Mute:
    """A gateway that takes the question and says nothing."""

    gateway = "check"
    policies = ("default",)
    asked = 0

    async def ask(self, url: str, policy: str) -> Answer:
        """Never answers."""
        self.asked += 1
        assert url
        assert policy
        await asyncio.Event().wait()
        return Answer(Verdict.ALLOW)


async def test_a_mute_gateway_holds_up_no_other(node: ControlNode) -> None:
    node.follower.matcher = Matcher.build({"police": [PAGE]})
    watched = Canaries(
        node.engine, node.follower, Settings(canaries={"police": CanarySettings(blocked=(PAGE, HOST))}),
        clock=node.clock, patience=3, more=lambda: {"second": (PAGE,)},
    )  # fmt: skip
    mute = Mute()
    watched.register(mute)
    watched.register(HttpProbe(node.server, ("default",)))
    await watched.look()
    assert mute.asked == 1, "it is waited for once, not for every list"
    found = {(state.list, state.gateway): state.reason for state in watched.states}
    assert found == {
        ("police", "check"): Reason.NO_ANSWER, ("second", "check"): Reason.NO_ANSWER,
        ("police", "control"): Reason.NOT_BLOCKED, ("second", "control"): Reason.WRONG_LIST,
    }  # fmt: skip


async def test_a_list_without_canaries_any_more_is_forgotten(node: ControlNode) -> None:
    node.follower.matcher = Matcher.build({"police": [PAGE]})
    more: dict[str, tuple[str, ...]] = {"police": (PAGE,)}
    watched = Canaries(node.engine, node.follower, Settings(), clock=node.clock, more=lambda: more)
    watched.register(HttpProbe(node.server, ("default",)))
    assert await reason(watched) is None
    more.clear()
    await watched.look()
    assert watched.states == ()


async def test_a_canary_is_no_hit_and_leaves_no_mark(node: ControlNode, logged: io.StringIO) -> None:
    node.follower.matcher = Matcher.build({"police": [PAGE]})
    watched = canaries(node)
    for _ in range(3):
        assert await reason(watched) is None
    await node.client.post("/v1/check", json={"urls": [PAGE]})
    assert node.engine.meters["control"].blocks == 0, "whoever asks for it"
    await node.hits.flush()
    node.clock.now += 7200
    await node.hits.flush()
    assert node.hits.released == {}
    metrics = (await node.client.get("/metrics")).text
    await node.client.post("/v1/check", json={"urls": [PAGE + "?x"]})
    assert node.engine.meters["control"].blocks == 1, "what is not the canary itself counts"
    for text in (metrics, logged.getvalue(), repr(watched.states)):
        assert "zzcanaryzz" not in text
