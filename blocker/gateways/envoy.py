"""The `envoy` gateway: external authorization over gRPC (`envoy.service.auth.v3.Authorization/Check`).

`envoy_checks.py` says what is asked and answered; here is the server around it. gRPC binds, reads and writes by itself,
in threads of its own, so its limits are options of its server. `grpc.health.v1.Health/Check` tells whether there is
something to decide with. Nothing of a call is logged: the library is held silent, and what goes wrong in an answer is
told to nobody but as a number.

Importing this module loads gRPC, 16 MB and seven threads: only where the gateway is enabled.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import structlog
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from blocker.errors import ServeError
from blocker.gateways._envoy import grpc
from blocker.gateways._envoy.ext_authz_pb2 import AttributeContext, CheckRequest, CheckResponse, HttpRequest, Request
from blocker.gateways.canaries import Answer, NoAnswer
from blocker.gateways.engine import NotReady
from blocker.gateways.envoy_checks import NAME, OK, EnvoyChecks, Malformed
from blocker.rules import Verdict
from blocker.sockets import bind, reachable, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocker.gateways.engine import StopPageBytes, VerdictEngine
    from blocker.sections import EnvoySettings

SERVICE = "envoy.service.auth.v3.Authorization"
CHECK = f"/{SERVICE}/Check"
_HEALTH = "grpc.health.v1.Health"
_SETTING = "BLOCKER_GATEWAYS__ENVOY__PORT"
# An URL of 64 KiB, and the headers that an Envoy sends which was not told to leave them out (60 KiB at the most).
MAX_MESSAGE_BYTES = 256 * 1024
# Headers of a call: its path, and what traces it.
_METADATA_BYTES = 16 * 1024
# A peer that is silent for so long is asked whether it is there, and cut off if it does not say so.
_KEEPALIVE_SECONDS, _KEEPALIVE_TIMEOUT_SECONDS = 60, 10

log = structlog.get_logger(__name__)


def envoy_listener(engine: VerdictEngine, settings: EnvoySettings, pages: Sequence[StopPageBytes]) -> EnvoyListener:
    """The gateway, not yet listening.

    Args:
        engine: Decides and counts.
        settings: Where it listens, its limits and its policy.
        pages: The stop page; see `VerdictEngine.gate`.

    Raises:
        UnknownPolicy: There is no such policy.
    """
    return EnvoyListener(engine, settings, EnvoyChecks(engine, settings.policy, pages))


class EnvoyListener:
    """The gateway's gRPC server.

    Args:
        engine: Says whether there is something to decide with.
        settings: Where it listens, and the limits.
        checks: Decides.
    """

    def __init__(self, engine: VerdictEngine, settings: EnvoySettings, checks: EnvoyChecks) -> None:
        self.name = NAME
        self.addresses: list[str] = []  # "127.0.0.1:9001", once started
        self.limits = settings
        self._engine = engine
        self._checks = checks
        self._server: grpc.aio.Server | None = None

    @property
    def port(self) -> int:
        """The bound TCP port, once started."""
        return int(self.addresses[0].rpartition(":")[2])

    async def start(self) -> None:
        """Bind and accept.

        Raises:
            ServeError: An address cannot be had.
        """
        server = grpc.aio.server(options=_options(self.limits), maximum_concurrent_rpcs=self.limits.max_requests)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    SERVICE, {"Check": grpc.unary_unary_rpc_method_handler(self._check)}
                ),
                grpc.method_handlers_generic_handler(
                    _HEALTH, {"Check": grpc.unary_unary_rpc_method_handler(self._health)}
                ),
            )
        )
        self.addresses = _bind(server, self.limits)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Accept nothing more, answer what is under way for `drain_seconds` at most, close; may be called twice."""
        if self._server is not None:
            await self._server.stop(self.limits.drain_seconds)
            self._server = None

    def configure(self, settings: EnvoySettings, pages: Sequence[StopPageBytes]) -> None:
        """Take over the policy and the stop page; addresses and limits stay, except for `drain_seconds`."""
        self.limits = settings
        self._checks.configure(settings.policy, pages)

    async def _check(self, message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            return self._checks.answer(message)
        except NotReady:
            code, reason = grpc.StatusCode.UNAVAILABLE, "no list yet"
        except Malformed:
            code, reason = grpc.StatusCode.INVALID_ARGUMENT, "no CheckRequest"
        except Exception:  # gRPC would tell the peer and its log what it says
            log.exception("a check failed")
            code, reason = grpc.StatusCode.INTERNAL, "the check failed"
        return await context.abort(code, reason)

    async def _health(self, message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if HealthCheckRequest.FromString(message).service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        try:
            self._engine.matcher()
        except NotReady:
            return HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING).SerializeToString()
        return HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()


def _options(limits: EnvoySettings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a second node on one port is a mistake
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        ("grpc.max_concurrent_streams", limits.max_requests),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.server_handshake_timeout_ms", int(limits.request_seconds * 1000)),
        ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
        ("grpc.keepalive_time_ms", _KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_SECONDS * 1000),
    ]


def _bind(server: grpc.aio.Server, limits: EnvoySettings) -> list[str]:
    # gRPC takes no socket and does not say why it cannot bind. So it binds what could be bound a moment before.
    held = bind(limits.host, limits.port, _SETTING)
    addresses = [shown(*opened.getsockname()[:2]) for opened in held]
    for opened in held:
        opened.close()
    for address in addresses:
        try:
            server.add_insecure_port(address)
        except RuntimeError:
            raise ServeError(f"address {address} was taken meanwhile; set {_SETTING} or start again") from None
    return addresses


class EnvoyProbe:
    """Asks as Envoy's HTTP filter does; a `blocker.gateways.canaries.Probe`.

    Args:
        listener: Asked at the first address that it is bound to.
    """

    def __init__(self, listener: EnvoyListener) -> None:
        self._listener = listener
        self.gateway = listener.name
        self.policies = (listener.limits.policy,)

    async def ask(self, url: str, policy: str) -> Answer:
        """See `Probe`; the time limit is the caller's."""
        if policy not in self.policies or not self._listener.addresses:
            raise NoAnswer("the envoy gateway does not listen")
        address = reachable(self._listener.addresses[0])
        async with grpc.aio.insecure_channel(address, options=_OWN_CONNECTION) as channel:
            try:
                message = await raw_check(channel)(question(url))
            except grpc.aio.AioRpcError:
                raise NoAnswer("the envoy gateway gave no verdict") from None
        response = CheckResponse.FromString(message)
        found = dict(response.dynamic_metadata.items())
        if "verdict" not in found or (found["verdict"] == "block") is (response.status.code == OK):
            raise NoAnswer("the envoy gateway gave no verdict")
        return Answer(Verdict(str(found["verdict"])), str(found["list"]) if "list" in found else None)


def raw_check(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """The call, from bytes to bytes."""
    return channel.unary_unary(CHECK, request_serializer=bytes, response_deserializer=bytes)


# Neither a proxy of the environment nor a connection that somebody else has open.
_OWN_CONNECTION = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
_URL = re.compile(r"(?:[a-z]+://)?(?:[^/?#@]*@)?([^/?#]*)([^#]*)", re.IGNORECASE)


def question(url: str) -> bytes:
    """The CheckRequest for an address, put together as a browser and Envoy would."""
    found = _URL.match(url)
    host, path = found.groups() if found else ("", "")
    path = path if path.startswith("/") else f"/{path}"
    http = HttpRequest(method=b"GET", host=host.encode(), path=path.encode())
    return CheckRequest(attributes=AttributeContext(request=Request(http=http))).SerializeToString()
