"""What `blocker doctor` says of the gateways: whether they can listen, and whether the resolvers answer that the `dns`
gateway forwards to.

These are asked from here and now, as the node asks them, whether it runs or not.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Literal

from blocker.cli.doctor_feeds import Figures, Finding
from blocker.errors import AddressInUse, BlockerError
from blocker.gateways.upstream_watch import UpstreamWatch
from blocker.section import StreamSettings
from blocker.sockets import bind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocker.cli.context import Context


def ports(run: Context) -> Iterator[Finding]:
    """Whether the addresses can be had that a node would listen on; of a node that runs, that it answers."""
    http, gateways = run.settings.http, run.settings.gateways
    figures = Figures.of(run)
    if figures is not None and figures.get("blocker_build_info") is not None:
        yield Finding("port", "ok", f"{http.host}:{http.port}: a node runs there")
        return
    yield _port("port", http.host, http.port, "BLOCKER_HTTP__PORT")
    for name, gateway in gateways:
        if not isinstance(gateway, StreamSettings) or not gateway.enabled:
            continue
        what, setting = f"gateway {name}", f"BLOCKER_GATEWAYS__{name.upper()}__"
        if gateway.port:
            also = (socket.SOCK_DGRAM,) if gateway is gateways.dns else ()
            yield _port(what, gateway.host, gateway.port, f"{setting}PORT", socket.SOCK_STREAM, *also)
        if gateway is gateways.dns and gateways.dns.tls_certificate is not None and gateways.dns.tls_port:
            yield _port(what, gateway.host, gateways.dns.tls_port, f"{setting}TLS_PORT")


def _port(what: str, host: str, port: int, setting: str, *kinds: socket.SocketKind) -> Finding:
    try:
        for kind in kinds or (socket.SOCK_STREAM,):
            for opened in bind(host, port, setting, kind=kind):
                opened.close()
    except AddressInUse as error:
        return Finding(what, "fail", str(error))
    except BlockerError as error:  # a node may be allowed more than who runs this
        return Finding(what, "warn", str(error))
    return Finding(what, "ok", f"{host}:{port} is free")


def upstreams(run: Context) -> Iterator[Finding]:
    """The findings about upstreams; none if nothing is forwarded."""
    settings = run.settings.gateways.dns
    if not settings.enabled or not settings.upstreams:
        return
    watch = UpstreamWatch(lambda: settings)
    run.run(watch.look())
    # One that is down is an outage where there is no other.
    bad: Literal["warn", "fail"] = (
        "warn" if any(state.last == "answered" for state in watch.states.values()) else "fail"
    )
    for text, state in watch.states.items():
        what = f"upstream {text}"
        if state.last == "answered" and state.seconds is not None:
            yield Finding(what, "ok", f"answers in {state.seconds * 1000:.0f} ms")
        elif state.last == "failed":
            yield Finding(
                what, bad, "says that it cannot answer: does it let this machine ask, and reach the Internet? If it "
                "knows no root, set gateways.dns.upstream_probe to a name that it knows",
            )  # fmt: skip
        else:
            seconds = settings.upstream_seconds
            yield Finding(what, bad, f"says nothing within {seconds:g} s: is it there, and may this machine reach it?")
