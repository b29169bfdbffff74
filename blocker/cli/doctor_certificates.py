"""What `blocker doctor` says of certificates: the `dns` gateway's and the zones', as the files have them now."""

from __future__ import annotations

import ssl
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from blocker.cli.doctor_feeds import Figures, Finding
from blocker.errors import BlockerError
from blocker.tls_server import expiry, server_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blocker.cli.context import Context
    from blocker.feed_section import RpzSettings

#: Time before its end at which a certificate should have been renewed, in seconds; as the alert's.
SOON_SECONDS = 7 * 86_400
#: By how much a running node's may differ from the file's by rounding alone, in seconds.
_SAME = 60.0
_HOUR, _DAY = 3600, 86_400


def certificates(run: Context) -> Iterator[Finding]:
    """The findings about certificates, and about zones that cross the network without one; none if nothing is on."""
    gateway, rpz = run.settings.gateways.dns, run.settings.feeds.rpz
    if gateway.enabled and gateway.tls_certificate is not None and gateway.tls_key is not None:
        yield from _files("dns gateway's certificate", gateway.tls_certificate, gateway.tls_key, "gateway dns")
    if not rpz.enabled:
        return
    if rpz.tls_certificate is not None and rpz.tls_key is not None:
        yield from _files(
            "zones' certificate",
            rpz.tls_certificate,
            rpz.tls_key,
            "feeds.rpz",
            rpz.tls_client_ca,
            running=_running(run),
        )
    if clear := _in_clear_text(rpz):
        remedy = "tls_only" if rpz.tls_certificate else "tls_certificate, tls_key and tls_only"
        yield Finding(
            "zones' transfers", "warn", f"{', '.join(clear)}: in clear text too; set {remedy}, unless they go by a "
            "tunnel or a network that is yours alone",
        )  # fmt: skip


def _files(
    what: str, certificate: Path, key: Path, of: str, client_ca: Path | None = None, running: float | None = None
) -> Iterator[Finding]:
    try:
        server_context(certificate, key, of=of, minimum=ssl.TLSVersion.TLSv1_3, client_ca=client_ca)
        ends = expiry(certificate)
    except BlockerError as error:
        yield Finding(
            what, "fail", f"{error}: are they there, in PEM, without a password, of each other, and may this user read "
            "them?",
        )  # fmt: skip
        return
    left = ends - time.time()
    if left <= 0:
        yield Finding(what, "fail", f"it ended {_span(-left)} ago: renew it, and send the node SIGHUP")
    elif left < SOON_SECONDS:
        yield Finding(what, "warn", f"it ends in {_span(left)}: renew it, and send the node SIGHUP")
    else:
        yield Finding(what, "ok", f"it ends in {_span(left)}")
    if running is not None and abs(running - ends) > _SAME:
        yield Finding(what, "warn", "the running node shows another one than the file has: send it SIGHUP")
    if key.stat().st_mode & 0o007:
        yield Finding(what, "warn", f"others can read {key}: make its mode 0600, or 0640 with the node's group")


def _running(run: Context) -> float | None:
    """When the certificate ends that the running node shows, in Unix seconds; None: it shows none, or does not run."""
    figures = Figures.of(run)
    left = None if figures is None else figures.get("blocker_zone_certificate_expiry_seconds")
    return None if left is None else time.time() + left


def _in_clear_text(rpz: RpzSettings) -> list[str]:
    """Zones that are transferred without TLS to who asks so, but where nobody else's machine is asked from."""
    if all(_is_loopback(host) for host in rpz.host.split(",")):
        return []
    return [name for name, zone in rpz.zones.items() if not zone.tls_only]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip()).is_loopback
    except ValueError:
        return host.strip() == "localhost"


def _span(seconds: float) -> str:
    return f"{seconds / _HOUR:.0f} hours" if seconds < 2 * _DAY else f"{seconds / _DAY:.0f} days"
