"""What `blocker doctor` says of certificates: the `dns` gateway's and the zones', as the files have them now."""

from __future__ import annotations

import ssl
import time
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from blocker.cli.doctor_feeds import Figures, Finding
from blocker.errors import BlockerError
from blocker.tls_server import expiry, named, server_context

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
#: Addresses that say nothing of who has them (RFC 9462, section 4.3).
_LOCAL = [
    ip_network(one)
    for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8", "fc00::/7",
                "fe80::/10", "::1/128")
]  # fmt: skip


def certificates(run: Context) -> Iterator[Finding]:
    """The findings about certificates, and about zones that cross the network without one; none if nothing is on."""
    gateway, rpz = run.settings.gateways.dns, run.settings.feeds.rpz
    if gateway.enabled and gateway.tls_certificate is not None and gateway.tls_key is not None:
        what = "dns gateway's certificate"
        found = list(_files(what, gateway.tls_certificate, gateway.tls_key, "gateway dns"))
        yield from found
        if gateway.tls_name is not None and found[0].state != "fail":
            yield from _found_by_clients(what, gateway.tls_certificate, gateway.tls_name, gateway.host)
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


def _found_by_clients(what: str, certificate: Path, name: str, host: str) -> Iterator[Finding]:
    """Whether clients that are told of the encrypted resolver will have it (RFC 9462, sections 4.2, 4.3 and 5)."""
    names, addresses = named(certificate)
    name = name.lower().removesuffix(".")
    if not {name, f"*.{name.partition('.')[2]}"} & {*names}:
        yield Finding(what, "fail", f"it is not for {name}, which tls_name tells clients: they will refuse it")
    told = [ip_address(one.strip()) for one in host.split(",") if _is_public(one.strip())]
    if missing := [str(one) for one in told if one not in addresses]:
        yield Finding(
            what, "warn", f"it is not for {', '.join(missing)}: clients that know the resolver by that alone stay with "
            "clear text; have the addresses put into the certificate",
        )  # fmt: skip


def _is_public(host: str) -> bool:
    """Whether it is one address that clients cannot take for their own network's, where they check no certificate."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return not address.is_unspecified and not any(address in network for network in _LOCAL)


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
