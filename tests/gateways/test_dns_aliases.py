"""Names whose answers lead over others (CNAME): a blocked one on the way blocks them, as with response policy zones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dns.message
import dns.name
import dns.rrset
import pytest

from blocker import Matcher
from tests.gateways.dns_desk import errors, shown
from tests.gateways.dns_running import ask, running
from tests.gateways.dns_upstream import Upstream, address, reply, upstream
from tests.gateways.test_http_codec import Desk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dns.message import QueryMessage

PASSED = ("NOERROR", ["192.0.2.9"])
BLOCKED: tuple[str, list[str]] = ("NXDOMAIN", [])


def chain(
    *targets: str, ttl: int = 300, backwards: bool = False
) -> Callable[[Upstream, QueryMessage, bool], Sequence[bytes]]:
    """A resolver for which every name is an alias of these, each of the one before."""

    def behave(_: Upstream, asked: QueryMessage, _stream: bool) -> list[bytes]:
        answer = reply(asked)
        owner = asked.question[0].name
        for target in targets:
            answer.answer.append(dns.rrset.from_text(owner, ttl, "IN", "CNAME", f"{target}."))
            owner = dns.name.from_text(target)
        answer.answer.append(dns.rrset.from_text(owner, ttl, "IN", "A", "192.0.2.9"))
        if backwards:
            answer.answer.reverse()
        return [answer.to_wire()]

    return behave


def desk() -> Desk:
    made = Desk()
    lists = {
        "police": ["host.example", "*.whole.example", "http://pages.example/listed/"],
        "quiet": ["shadowed.example"],
        "pardon": ["ours.example", "*.let.whole.example"],
    }
    swap(made, Matcher.build(lists, allow=("pardon",), shadow=("quiet",)))
    return made


def swap(desk: Desk, matcher: Matcher) -> None:
    desk.followed.matcher = matcher
    desk.engine.swapped(matcher)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["host.example"], BLOCKED),
        (["HOST.eXample"], BLOCKED),
        (["harmless.example", "host.example"], BLOCKED),
        (["a.b.whole.example", "harmless.example"], BLOCKED),
        (["a.host.example"], PASSED),
        (["nothost.example"], PASSED),
        (["pages.example"], PASSED),
        (["shadowed.example"], PASSED),
        (["a.let.whole.example"], PASSED),
        (["a b.harmless.example", "_x.harmless.example"], PASSED),
    ],
)
async def test_each_name_on_the_way_is_decided(
    targets: list[str], expected: tuple[str, list[str]], *, backwards: bool
) -> None:
    written = [target.replace(" ", r"\032") for target in targets]
    async with upstream(chain(*written, backwards=backwards)) as other, running(other, desk=desk()) as listener:
        for tcp in (False, True):  # from the other, then from what is kept
            found = await ask(listener, "alias.example", tcp=tcp)
            assert seen(found) == expected
            assert errors(found) == ([(15, "")] if expected == BLOCKED else [])
        assert len(other.asked) == 1


def seen(found: dns.message.Message) -> tuple[str, list[str]]:
    """Code and addresses."""
    code, records = shown(found)
    return code, [record for record in records if record[0].isdigit()]


async def test_what_is_answered_follows_the_lists_though_the_answer_is_kept() -> None:
    its = desk()
    async with upstream(chain("later.example")) as other, running(other, desk=its) as listener:
        assert seen(await ask(listener, "alias.example")) == PASSED
        before = its.followed.matcher
        assert before is not None
        swap(its, Matcher.build({"police": ["later.example"]}))
        assert seen(await ask(listener, "alias.example")) == BLOCKED
        swap(its, before)
        assert seen(await ask(listener, "alias.example")) == PASSED
        assert len(other.asked) == 1


async def test_an_exception_for_a_name_holds_wherever_it_leads() -> None:
    async with upstream(chain("host.example")) as other, running(other, desk=desk()) as listener:
        for name in ("ours.example", "a.let.whole.example"):
            for _ in range(2):
                assert seen(await ask(listener, name)) == PASSED
        # A page of it is listed, which is no exception.
        assert seen(await ask(listener, "pages.example")) == BLOCKED


async def test_without_aliases_the_asked_name_alone_counts() -> None:
    async with upstream(chain("host.example")) as other, running(other, desk=desk(), aliases=False) as listener:
        assert seen(await ask(listener, "alias.example")) == PASSED
        listener.configure(listener.settings.model_copy(update={"aliases": True}))
        assert seen(await ask(listener, "alias.example")) == BLOCKED
        assert len(other.asked) == 1


async def test_a_block_by_an_alias_is_a_hit_and_an_allowed_alias_is_no_decision() -> None:
    its = desk()
    async with upstream(chain("shadowed.example", "harmless.example")) as other, running(other, desk=its) as listener:
        gate = listener.gate
        await ask(listener, "alias.example")
        assert gate.take_counts()[:4] == (1, 0, 0, 0)
        assert gate.take_hits() == [("quiet", True, 1)]
        other.behave = chain("host.example")
        await ask(listener, "other.example")
        assert gate.take_counts()[:4] == (1, 0, 1, 0)
        assert gate.take_hits() == [("police", False, 1)]


async def test_a_stale_answer_is_decided_too() -> None:
    async with (
        upstream(chain("host.example", ttl=1)) as other,
        running(other, desk=desk(), aliases=False, stale_seconds=3600, upstream_seconds=0.1) as listener,
    ):
        assert seen(await ask(listener, "alias.example")) == PASSED
        other.go.clear()  # nobody answers any more
        while not errors(found := await ask(listener, "alias.example")):
            pass  # each waits for the other resolver once its time is over
        assert (seen(found), errors(found)) == (PASSED, [(3, "")])
        listener.configure(listener.settings.model_copy(update={"aliases": True}))
        assert seen(await ask(listener, "alias.example")) == BLOCKED
        other.go.set()


async def test_what_is_no_alias_or_too_many_is_no_answer() -> None:
    def broken(_: Upstream, asked: QueryMessage, _stream: bool) -> list[bytes]:
        whole = reply(asked, "300 CNAME a.example.").to_wire()
        return [whole[:-1] + b"\x3f"]  # where its data should end

    async with upstream(broken) as other, running(other, desk=desk()) as listener:
        assert shown(await ask(listener, "alias.example")) == ("SERVFAIL", [])
        other.behave = chain(*(f"{number}.example" for number in range(33)))
        assert shown(await ask(listener, "many.example", payload=4096)) == ("SERVFAIL", [])
        other.behave = chain(*(f"{number}.example" for number in range(31)), "host.example")
        assert seen(await ask(listener, "more.example", payload=4096)) == BLOCKED
        other.behave = address
        assert seen(await ask(listener, "plain.example")) == ("NOERROR", ["192.0.2.33"])
