"""A running node's configuration read anew, at SIGHUP: what can change under it changes, what cannot is told.

All of it is validated before any of it is used, so a faulty file changes nothing. Decisions go on meanwhile, by the old
configuration until the matcher with the new policies is put in place, in one step for all gateways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from blocker import log as logging
from blocker.errors import BlockerError, SettingsError
from blocker.log import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from blocker.cli.node import Node
    from blocker.dns_section import DnsSettings
    from blocker.feed_section import RpzSettings
    from blocker.sections import GatewaySettings
    from blocker.settings import Settings

log = structlog.get_logger(__name__)

# What is bound, opened or counted by for as long as a node runs.
_FIXED = ("data_dir", "lists_dir", "redis_url", "deployment", "node", "roles", "timezone", "http", "hits", "companions")
_FIXED_OF_GATEWAYS = ("enabled", "host", "port", "unix", "unix_mode")
# Beside these; gRPC holds the limits by itself, from its start on.
_FIXED_OF_ONE = {
    "dns": (*_FIXED_OF_GATEWAYS, "tls_port"),
    "envoy": ("enabled", "host", "port", "max_connections", "max_requests", "request_seconds", "idle_seconds"),
}
_FIXED_OF_RPZ = ("enabled", "host", "port", "tls_port", "on_dns_gateway", "max_transfers", "history")
# Sockets and threads that are there from the start on. Routes can be turned off, and on with a start only.
_FIXED_OF_ROUTES = ("unix", "group", "resolvers", "quorum", "lookup_seconds", "lookup_tries")


def reload(node: Node) -> None:
    """Read the configuration and use it; whatever is wrong with it is logged, and the old one stays."""
    try:
        settings = node.context.load()
    except SettingsError as error:
        log.error("configuration not read anew, the old one stays", detail=str(error))  # noqa: TRY400 - our own text
        return
    waiting = sorted(needing_restart(node.context.settings, settings))
    if waiting:
        log.warning("these settings change with the next start only", settings=waiting)
    try:
        node.front.streams.prepare(settings.gateways)
        if node.management is not None:
            node.management.prepare(settings)
    except BlockerError as error:
        log.error("configuration not used, the old one stays", **describe(error))  # noqa: TRY400 - no values
        return
    try:
        _use(node, settings)
    except BlockerError as error:
        log.error("configuration not used whole", **describe(error))  # noqa: TRY400 - no values
        return
    log.info("configuration read anew")


def needing_restart(old: Settings, new: Settings) -> Iterator[str]:
    """Names of settings that differ and cannot change under a running node."""
    yield from (name for name in _FIXED if getattr(old, name) != getattr(new, name))
    if new.routes.enabled and not old.routes.enabled:
        yield "routes.enabled"
    yield from (f"routes.{f}" for f in _FIXED_OF_ROUTES if getattr(old.routes, f) != getattr(new.routes, f))
    for name, gateway in old.gateways:
        other: BaseModel = getattr(new.gateways, name)
        if name == "workers":
            if other != gateway:
                yield "gateways.workers"
            continue
        fixed = (field for field in _fixed(name) if getattr(gateway, field) != getattr(other, field))
        yield from (f"gateways.{name}.{field}" for field in fixed)
    if _tls_comes_or_goes(old.gateways.dns, new.gateways.dns):
        yield "gateways.dns.tls_certificate"
    if _tls_comes_or_goes(old.feeds.rpz, new.feeds.rpz):
        yield "feeds.rpz.tls_certificate"
    feeds = (field for field in _FIXED_OF_RPZ if getattr(old.feeds.rpz, field) != getattr(new.feeds.rpz, field))
    yield from (f"feeds.rpz.{field}" for field in feeds)


def _fixed(gateway: str) -> tuple[str, ...]:
    return _FIXED_OF_ONE.get(gateway, _FIXED_OF_GATEWAYS)


def _tls_comes_or_goes(old: DnsSettings | RpzSettings, new: DnsSettings | RpzSettings) -> bool:
    """Whether there would have to be a socket for it, or one less."""
    return (old.tls_certificate is None) != (new.tls_certificate is None)


def _addresses_kept(old: GatewaySettings, new: GatewaySettings) -> GatewaySettings:
    gateways: dict[str, object] = {"workers": old.workers}
    for name, gateway in old:
        if name != "workers":
            fixed = {field: getattr(gateway, field) for field in _fixed(name)}
            if name == "dns" and _tls_comes_or_goes(old.dns, new.dns):
                fixed |= {"tls_certificate": old.dns.tls_certificate, "tls_key": old.dns.tls_key}
            gateways[name] = getattr(new, name).model_copy(update=fixed)
    return new.model_copy(update=gateways)


def _zones_kept(old: RpzSettings, new: RpzSettings) -> RpzSettings:
    fixed: dict[str, object] = {field: getattr(old, field) for field in _FIXED_OF_RPZ}
    if _tls_comes_or_goes(old, new):
        fixed |= {field: getattr(old, field) for field in ("tls_certificate", "tls_key", "tls_client_ca")}
    if old.tls_certificate is None:  # until there is TLS, nobody could have a zone over that alone
        fixed["zones"] = {name: zone.model_copy(update={"tls_only": False}) for name, zone in new.zones.items()}
    return new.model_copy(update=fixed)


def _use(node: Node, settings: Settings) -> None:
    old = node.context.settings
    # What cannot change is kept as it was, so that what is told of it stays true.
    kept: dict[str, object] = {name: getattr(old, name) for name in _FIXED}
    kept["gateways"] = _addresses_kept(old.gateways, settings.gateways)
    kept["feeds"] = settings.feeds.model_copy(update={"rpz": _zones_kept(old.feeds.rpz, settings.feeds.rpz)})
    routes = {field: getattr(old.routes, field) for field in _FIXED_OF_ROUTES}
    routes["enabled"] = old.routes.enabled and settings.routes.enabled
    kept["routes"] = settings.routes.model_copy(update=routes)
    settings = settings.model_copy(update=kept)
    node.context.settings = settings
    logging.configure(settings.log_level, settings.log_format)
    node.front.configure(settings)
    node.front.follower.configure(node.context.policies, settings.poll_seconds)  # from here on gates decide by them
    if node.management is not None:
        node.management.configure(settings)
    if node.worker is not None:
        node.worker.configure(settings.guards, settings.keep_serials)
    node.front.host.reconfigured()
