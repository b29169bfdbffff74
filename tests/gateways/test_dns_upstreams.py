"""Which of several resolvers is asked, and what clients notice of those that are dead, slow, or come back."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from typing import TYPE_CHECKING

from blocker.gateways import upstreams
from tests.gateways.dns_desk import errors, query, shown
from tests.gateways.dns_running import ask, running
from tests.gateways.dns_upstream import Upstream, address, reply, upstream
from tests.ingest.checks import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    from dns.message import QueryMessage

ANSWER = ("NOERROR", ["192.0.2.33"])
FAILURE: tuple[str, list[str]] = ("SERVFAIL", [])
# Longer than any test may take: an answer that comes at all did not wait for it.
NEVER = 25.0


def silent(_upstream: Upstream, _asked: QueryMessage, _stream: bool) -> list[bytes]:
    return []


@contextlib.contextmanager
def dead() -> Iterator[int]:
    """The port of a resolver that takes questions and never answers."""
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]


async def test_nobody_waits_for_a_dead_resolver_once_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    with dead() as away:
        async with upstream(address) as one, running(away, one, upstream_seconds=0.3, cache_bytes=0) as listener:
            await asyncio.gather(*(ask(listener, f"{number}.example") for number in range(2)))
            (gone, _) = listener.forwarder._upstreams
            assert (gone.address[1], gone.last) == (away, True)
            listener.forwarder._seconds = NEVER  # whoever waited for it from now on would not be answered in time
            for number in range(50):
                assert shown(await ask(listener, f"later{number}.example")) == ANSWER
            await until(lambda: gone.silent)
            assert capsys.readouterr().out.count("does not answer") == 1


async def test_a_resolver_that_comes_back_is_asked_first_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "_PAUSE_SECONDS", 0.05)
    async with (
        upstream(silent) as first,
        upstream(address) as second,
        running(first, second, cache_bytes=0, upstream_seconds=0.2) as listener,
    ):
        for number in range(2):
            assert shown(await ask(listener, f"{number}.example")) == ANSWER
        (gone, _) = listener.forwarder._upstreams
        await until(lambda: gone.silent)
        first.behave = address
        await until(lambda: not gone.last)
        listener.forwarder._seconds = NEVER
        before = len(second.asked)
        assert shown(await ask(listener, "first.example")) == ANSWER
        assert len(second.asked) == before


async def test_slow_names_make_no_resolver_silent(capsys: pytest.CaptureFixture[str]) -> None:
    def behave(one: Upstream, asked: QueryMessage, stream: bool) -> list[bytes]:
        slow = asked.question[0].name.to_text().lower().startswith("slow")
        return [] if slow else address(one, asked, stream)

    async with (
        upstream(behave) as one, upstream(behave) as two,
        running(one, two, upstream_seconds=2.0, cache_bytes=0) as listener,
    ):  # fmt: skip
        asking = [asyncio.create_task(ask(listener, f"slow{number}.example")) for number in range(20)]
        while not all(task.done() for task in asking):
            assert shown(await ask(listener, "quick.example")) == ANSWER
        assert [shown(task.result()) for task in asking] == [FAILURE] * 20
        # The second one was asked for slow names only, so it was looked at, and found well.
        await until(lambda: not any(each.last for each in listener.forwarder._upstreams))
        assert two.looks
        assert "does not answer" not in capsys.readouterr().out


async def test_that_nobody_answers_is_kept_for_a_moment() -> None:
    async with upstream(silent) as one, running(one, upstream_seconds=0.1) as listener:
        for _ in range(3):
            found = await ask(listener, "away.example")
            assert (shown(found), errors(found)) == (FAILURE, [(23, "")])
        assert len(one.asked) == 2, "for the first of them"
        one.behave = address
        assert shown(await ask(listener, "other.example")) == ANSWER


async def test_a_refusal_is_kept_for_a_moment() -> None:
    def refusing(_: Upstream, asked: QueryMessage, _stream: bool) -> list[bytes]:
        return [reply(asked, rcode="REFUSED").to_wire()]

    async with upstream(refusing) as one, running(one) as listener:
        for _ in range(3):
            assert shown(await ask(listener, "host2.example")) == ("REFUSED", [])
        assert len(one.asked) == 2


async def test_what_was_right_before_is_given_at_once_while_nobody_answers() -> None:
    async with (
        upstream(lambda _one, asked, _stream: [reply(asked, "1 A 192.0.2.1").to_wire()]) as one,
        running(one, stale_seconds=3600, upstream_seconds=NEVER) as listener,
    ):
        assert shown(await ask(listener, "once.example")) == ("NOERROR", ["192.0.2.1"])
        one.behave = silent
        before = len(one.asked)
        found = await ask(listener, "once.example")
        while not errors(found):  # until its time is over
            found = await ask(listener, "once.example")
        assert (shown(found), errors(found)) == (("NOERROR", ["192.0.2.1"]), [(3, "")])
        assert len(one.asked) == before + 1, "and it is still asked"
        for _ in range(5):
            assert errors(await ask(listener, "once.example")) == [(3, "")]
        assert len(one.asked) == before + 1, "nobody is asked again at once"
        assert listener.forwarder.waiting == 0


async def test_a_resolver_that_changes_letters_case_costs_no_whole_time_limit() -> None:
    def behave(one: Upstream, asked: QueryMessage, stream: bool) -> list[bytes]:
        wire = address(one, asked, stream)[0]
        return [wire[:12] + wire[12:].lower() if b"\xc0" in wire else wire]

    async with upstream(behave) as one, running(one, upstream_seconds=NEVER) as listener:
        assert shown(await ask(listener, "a-long-name-with-many-letters.example")) == ANSWER
        assert len(one.asked_over_tcp) == 1


async def test_no_answer_is_kept_by_clients_for_longer_than_it_is_here() -> None:
    def behave(_: Upstream, asked: QueryMessage, _stream: bool) -> list[bytes]:
        return [reply(asked, "86400 A 192.0.2.1").to_wire()]

    async with upstream(behave) as one, running(one, max_ttl=60) as listener:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(2):
            ttl = (await ask(listener, "long.example")).answer[0].ttl
            assert 59 - (loop.time() - begun) <= ttl <= 60


async def test_what_this_machine_lacks_is_not_the_resolvers_fault(capsys: pytest.CaptureFixture[str]) -> None:
    async with upstream(address) as one, running(one) as listener:
        assert shown(await ask(listener, "before.example")) == ANSWER
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", listener.port))
            client.setblocking(False)
            highest = max(client.fileno(), *(each.fileno() for each in listener._datagrams))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            held, code, number = [], 0, 0
            try:
                while code != 2:  # what was closed a moment ago may still have been free
                    with contextlib.suppress(OSError):
                        while True:
                            held.append(socket.socket())
                    number += 1
                    client.send(query(f"during{number}.example").to_wire())
                    code = (await asyncio.get_running_loop().sock_recv(client, 4096))[3] & 15
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for each in held:
                    each.close()
        assert not listener.forwarder._upstreams[0].silent
        assert "Too many open files" in capsys.readouterr().out
        assert shown(await ask(listener, f"during{number}.example")) == ANSWER, "and it is not kept"
