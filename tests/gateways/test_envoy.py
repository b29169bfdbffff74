"""The envoy gateway: a real gRPC client asks it, with the messages of Envoy's own API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2 as theirs
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from blocker import Matcher
from blocker.control.stop_page import StopPage
from blocker.errors import ServeError
from blocker.gateways.canaries import NoAnswer
from blocker.gateways.engine import UnknownPolicy
from blocker.gateways.envoy import CHECK, MAX_MESSAGE_BYTES, EnvoyListener, EnvoyProbe, envoy_listener, raw_check
from blocker.matcher import Policy
from blocker.rules import Verdict
from blocker.sections import EnvoySettings
from blocker.stop_section import StopPageSettings
from tests.gateways.test_http_codec import BLOCKED, LISTS, PAGES, Desk
from tests.ingest.checks import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEADLINE = 30.0
ROOT = Path(__file__).parents[2]
MARK = "zzmarkzz"
# Each its own connection, and none through a proxy.
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]


@contextlib.asynccontextmanager
async def running(desk: Desk | None = None, **limits: Any) -> AsyncIterator[EnvoyListener]:  # noqa: ANN401 - settings' own
    desk = desk or Desk()
    listener = envoy_listener(desk.engine, EnvoySettings(port=0, **{"drain_seconds": 0.2, **limits}), PAGES)
    await listener.start()
    try:
        async with asyncio.timeout(DEADLINE):
            yield listener
    finally:
        await listener.stop()


def channel(listener: EnvoyListener) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(listener.addresses[0], options=OPTIONS)


def http(host: str, path: str, method: str = "GET", **headers: str) -> bytes:
    """What Envoy sends about a request, address of the client included."""
    asked = theirs.CheckRequest()
    asked.attributes.source.address.socket_address.address = "192.0.2.77"
    request = asked.attributes.request.http
    request.method, request.host, request.path = method, host, path
    request.scheme, request.protocol, request.id, request.size = "https", "HTTP/1.1", "17", -1
    for name, value in {":authority": host, ":path": path, **headers}.items():
        request.headers[name.replace("_", "-")] = value
    return bytes(asked.SerializeToString())


def hello(sni: str) -> bytes:
    """What Envoy's network filter sends about a TLS hello."""
    asked = theirs.CheckRequest()
    asked.attributes.source.address.socket_address.address = "192.0.2.77"
    asked.attributes.request.time.seconds = 1
    asked.attributes.tls_session.sni = sni
    return bytes(asked.SerializeToString())


async def ask(listener: EnvoyListener, *messages: bytes) -> list[theirs.CheckResponse]:
    async with channel(listener) as one:
        return [theirs.CheckResponse.FromString(await raw_check(one)(message)) for message in messages]


async def refusal(listener: EnvoyListener, message: bytes) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(listener, message)
    return caught.value


def told(answer: theirs.CheckResponse) -> tuple[int, int, dict[str, object]]:
    """Status of the call, status for the client, metadata."""
    return answer.status.code, answer.denied_response.status.code, dict(answer.dynamic_metadata.items())


ALLOWED = (0, 0, {"verdict": "allow"})
INSPECTED = (0, 0, {"verdict": "inspect"})
DENIED = (7, 451, {"verdict": "block", "list": "police"})
AMBIGUOUS: tuple[int, int, dict[str, object]] = (7, 400, {})


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (http("listed.example", "/gallery/1.jpg"), DENIED),
        (http("LISTED.example:8443", "//gallery/%61?x=y"), DENIED),
        (http("harmless.example@listed.example", "/gallery/"), DENIED),
        (http("listed.example", "/"), ALLOWED),
        (http("listed.example", "/gallery/ok"), (0, 0, {"verdict": "allow", "list": "pardon"})),
        (http("shadowed.example", "/"), ALLOWED),
        (http("host.example", "*", "OPTIONS"), DENIED),
        (http("host.example", "", "GET"), DENIED),
        (
            http("harmless.example", "/", x_forwarded_host="host.example", x_original_url="http://host.example/"),
            ALLOWED,
        ),
        (http("host.example:443", "", "CONNECT"), DENIED),
        (http("listed.example:443", "", "CONNECT"), INSPECTED),
        (http("[2001:db8::1]:443", "", "CONNECT"), ALLOWED),
        (http("listed.example", "/gallery/", "CONNECT"), DENIED),
        (hello("host.example"), DENIED),
        (hello("listed.example"), INSPECTED),
        (hello("harmless.example"), ALLOWED),
        (hello(""), ALLOWED),
        (b"", ALLOWED),
        *((http(host, "/gallery/"), AMBIGUOUS) for host in ("", "a/", "a#", "a?", "a\\b", "a b", "a\n")),
        (http("listed.example", "gallery/"), AMBIGUOUS),
        (http("listed.example", "http://harmless.example/"), AMBIGUOUS),
    ],
)
async def test_each_way_of_asking(asked: bytes, answered: tuple[int, int, dict[str, object]]) -> None:
    async with running() as listener:
        (answer,) = await ask(listener, asked)
    assert told(answer) == answered
    # Envoy takes what is said last; a header of the client by the same name does not pass.
    options = answer.ok_response.headers or answer.denied_response.headers
    assert {option.append_action for option in options} <= {2}


async def test_a_block_shows_the_page_in_the_languages_that_are_accepted() -> None:
    async with running() as listener:
        plain, swedish = await ask(
            listener, http("host.example", "/"), http("host.example", "/", accept_language="sv;q=0.9, ja")
        )
    for answer, language in ((plain, "en"), (swedish, "sv")):
        denied = answer.denied_response
        page = next(body for _, name, _, body in PAGES if name == language)
        assert denied.body.encode() == page
        headers = {option.header.key: option.header.value for option in denied.headers}
        assert headers.items() >= {
            "x-blocker-verdict": "block", "x-blocker-list": "police", "content-language": language,
            "content-type": "text/html; charset=utf-8", "cache-control": "no-store",
        }.items()  # fmt: skip
        assert 'rel="blocked-by"' in headers["link"]
        assert "content-length" not in headers
    (allowed,) = await ask_once(http("listed.example", "/gallery/ok"))
    said = {option.header.key: option.header.value for option in allowed.ok_response.headers}
    assert said == {"x-blocker-verdict": "allow"}, "the origin is not told which list knows the page"


async def ask_once(message: bytes) -> list[theirs.CheckResponse]:
    async with running() as listener:
        return await ask(listener, message)


async def test_bytes_that_are_no_utf_8_are_decided_and_no_error() -> None:
    asked = http("listed.example", "/gallery/QQQQ", accept_language="QQQQ").replace(b"QQQQ", b"\xff\xfe\x80\xc3")
    assert [told(answer) for answer in await ask_once(asked)] == [DENIED]


async def test_the_verdict_is_the_engines_and_is_counted_once() -> None:
    desk = Desk()
    desk.engine.swapped(Matcher.build(LISTS, policies=[Policy(on_invalid="block")]))
    desk.followed.matcher = Matcher.build(LISTS, policies=[Policy(on_invalid="block")])
    async with running(desk) as listener:
        answers = await ask(listener, hello(""), hello("host.example"), http("a.example", "/"), hello("listed.example"))
    assert [answer.status.code for answer in answers] == [7, 7, 0, 0]
    desk.engine.meters.collect()
    meter = desk.engine.meters["envoy"]
    assert (meter.allow, meter.inspect, meter.blocks, meter.invalid) == (1, 1, 2, 1)
    await desk.hits.flush()
    assert sum(desk.store.cells.values()) == 1
    with pytest.raises(UnknownPolicy):
        envoy_listener(desk.engine, EnvoySettings(policy="school"), PAGES)


async def test_another_policy_and_other_pages_are_taken_over_while_it_runs() -> None:
    desk = Desk()
    other = StopPage(StopPageSettings(operator="Another")).as_bytes()
    async with running(desk) as listener:
        asked = (http("host.example", "/"), http("shadowed.example", "/"))
        before = await ask(listener, *asked)
        listener.configure(EnvoySettings(policy="strict"), other)
        between = await ask(listener, *asked)
        policies = [Policy(), Policy(name="strict", lists={"quiet": "enforce"})]
        desk.followed.matcher = Matcher.build(LISTS, policies=policies)
        desk.engine.swapped(desk.followed.matcher)
        after = await ask(listener, *asked)
    assert [one.status.code for one in before] == [one.status.code for one in between] == [7, 0]
    assert [one.status.code for one in after] == [0, 7]
    assert "Provider" in before[0].denied_response.body
    assert "Another" in between[0].denied_response.body
    assert "Another" in after[1].denied_response.body


async def test_without_a_matcher_there_is_no_answer_and_no_health() -> None:
    desk = Desk(ready=False)
    async with running(desk) as listener:
        assert (await refusal(listener, http("a.example", "/"))).code() is grpc.StatusCode.UNAVAILABLE
        assert await health(listener) == HealthCheckResponse.NOT_SERVING
        desk.followed.matcher = Matcher.build(LISTS)
        assert await health(listener, "envoy.service.auth.v3.Authorization") == HealthCheckResponse.SERVING
        assert [told(answer) for answer in await ask(listener, hello("host.example"))] == [DENIED]
        with pytest.raises(grpc.aio.AioRpcError, match="no such service"):
            await health(listener, "other")


async def health(listener: EnvoyListener, service: str = "") -> int:
    async with channel(listener) as one:
        call = one.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        answer: HealthCheckResponse = await call(HealthCheckRequest(service=service))
        return answer.status


async def test_what_is_malformed_or_too_large_is_refused() -> None:
    desk = Desk()
    async with running(desk) as listener:
        error = await refusal(listener, b"\xff" + MARK.encode())
        assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no CheckRequest")
        error = await refusal(listener, http("a.example", f"/{MARK}" * (MAX_MESSAGE_BYTES // 8)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError, match="Method not found"):
            async with channel(listener) as one:
                await one.unary_unary(f"/{MARK}/Check", request_serializer=bytes, response_deserializer=bytes)(b"")
        marks = (("authorization", MARK), ("x-forwarded-for", MARK))
        async with channel(listener) as one:
            message = http(f"{MARK}.example", f"/{MARK}", cookie=MARK, authorization=MARK)
            assert await raw_check(one)(message, metadata=marks)
            desk.followed.matcher = Broken()  # type: ignore[assignment]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw_check(one)(message, metadata=marks)
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "the check failed")


class Broken:
    """A matcher that raises what it was asked."""

    def decide(self, url: bytes, _policy: str) -> None:
        """Fail."""
        raise ValueError(url.decode())


async def test_more_connections_than_are_borne_are_refused() -> None:
    async with running(max_connections=2) as listener, channel(listener) as one, channel(listener) as two:
        for held in (one, two):
            assert await raw_check(held)(hello("host.example"))
        async with channel(listener) as three:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw_check(three)(hello("host.example"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await raw_check(one)(hello("host.example"))


async def test_more_checks_than_are_borne_are_refused() -> None:
    async with running(max_requests=1) as listener, channel(listener) as one:
        call = await begun(one, listener)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(listener, hello("host.example"))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await finish(call)
        assert [told(answer) for answer in await ask(listener, hello("host.example"))] == [DENIED]


async def begun(one: grpc.aio.Channel, listener: EnvoyListener) -> Any:  # noqa: ANN401 - an object without types
    """A check whose message does not come yet, and which has arrived: of one at once, no other is borne."""
    call, code = None, grpc.StatusCode.OK
    async with channel(listener) as other:
        while call is None or call.done() or code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            if call is None or call.done():  # itself the one too many
                call = one.stream_unary(CHECK, request_serializer=bytes, response_deserializer=bytes)()
            code = await raw_check(other)(hello("host.example")).code()
    return call


async def finish(call: Any) -> None:  # noqa: ANN401 - as above
    await call.write(hello("host.example"))
    await call.done_writing()
    assert told(theirs.CheckResponse.FromString(await call)) == DENIED


async def test_a_stop_answers_what_is_under_way_and_takes_nothing_new() -> None:
    async with running(drain_seconds=20.0, max_requests=1) as listener, channel(listener) as one:
        call = await begun(one, listener)
        stopping = asyncio.create_task(listener.stop())
        await until(lambda: refuses(listener.port))
        await finish(call)
        async with asyncio.timeout(15):
            await stopping
        await listener.stop()


async def test_a_stop_waits_no_longer_than_it_may() -> None:
    async with running(drain_seconds=0.1, max_requests=1) as listener, channel(listener) as one:
        call = await begun(one, listener)
        async with asyncio.timeout(15):
            await listener.stop()
        with pytest.raises(grpc.aio.AioRpcError):
            await call


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_a_peer_that_says_nothing_is_closed() -> None:
    async with running(request_seconds=2.0) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                while await reader.read(1000):
                    pass  # the server's own settings
        writer.close()
        assert [told(answer) for answer in await ask(listener, hello("host.example"))] == [DENIED]


async def test_an_address_in_use_names_the_setting() -> None:
    async with running() as listener:
        other = envoy_listener(Desk().engine, EnvoySettings(port=listener.port), PAGES)
        with pytest.raises(ServeError, match="BLOCKER_GATEWAYS__ENVOY__PORT"):
            await other.start()
        await other.stop()
        assert [told(answer) for answer in await ask(listener, hello("host.example"))] == [DENIED]


async def test_canaries_ask_through_the_socket() -> None:
    async with running() as listener:
        probe = EnvoyProbe(listener)
        assert await probe.ask(BLOCKED, "default") == (Verdict.BLOCK, "police", None)
        assert (await probe.ask("http://user@harmless.example?ä b#c", "default")).verdict is Verdict.ALLOW
        with pytest.raises(NoAnswer):
            await probe.ask("http:///", "default")
        with pytest.raises(NoAnswer):
            await probe.ask(BLOCKED, "school")
    with pytest.raises(NoAnswer):
        await probe.ask(BLOCKED, "default")
    async with running(Desk(ready=False)) as listener:
        with pytest.raises(NoAnswer):
            await EnvoyProbe(listener).ask(BLOCKED, "default")


@pytest.mark.parametrize("loop", ["None", "uvloop.new_event_loop"])
def test_in_a_process_of_its_own_nothing_is_said_of_a_call_whatever_the_library_is_told(loop: str) -> None:
    script = f"""
import asyncio, uvloop
import blocker.gateways.envoy  # before any other module that loads gRPC, as in a node
from blocker import log
from tests.gateways import test_envoy as t
async def main():
    async with t.running() as listener:
        async with t.channel(listener) as one:
            for _ in range(20):
                calls = [t.raw_check(one)(t.http("host.example", "/{MARK}")) for _ in range(50)]
                answers = await asyncio.gather(*calls)
                assert len(set(answers)) == 1
                assert t.told(t.theirs.CheckResponse.FromString(answers[0])) == t.DENIED
    await t.test_a_stop_answers_what_is_under_way_and_takes_nothing_new()
    await t.test_what_is_malformed_or_too_large_is_refused()
log.configure("debug", "json")
log.catch_uncaught()
with asyncio.Runner(loop_factory={loop}) as runner:
    runner.run(main())
"""
    environment = {**os.environ, "GRPC_VERBOSITY": "DEBUG", "GRPC_TRACE": "all"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["event"] == "a check failed"
    assert MARK not in line
    assert "127.0.0.1" not in line


def test_grpc_is_loaded_only_where_the_gateway_is_enabled() -> None:
    script = "import sys, blocker.cli.management; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
