"""Redis URLs: what they may say, and reading them without ever repeating them.

`[user:password@]` may stand before the hosts everywhere; reserved characters in it are percent-encoded:

    redis://host[:port][/db]        rediss://…  the same over TLS        unix:///path/to/socket[?db=…]
    redis+sentinel://host[:port],…/service[/db]      rediss+sentinel://…  TLS to the sentinels and to Redis
    redis+cluster://host[:port],…                    rediss+cluster://…

Options after `?`: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (paths), `ssl_cert_reqs` (required, optional, none),
`ssl_check_hostname` (true, false), `sentinel_username`, `sentinel_password`, and `db`, `username`, `password` or
`password_file`: the path of a file that holds the password, such as a mounted secret; read at each connect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

from blocker.errors import SettingsError

Topology = Literal["single", "unix", "sentinel", "cluster"]

_SCHEMES: dict[str, tuple[Topology, bool]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_DEFAULT_PORT = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\s\[\]:@/?#]+)(?::([0-9]{1,5}))?")
_LAST_PORT = 65535
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_OPTIONS = ("db", "username", "password", "password_file", "sentinel_username", "sentinel_password", *_TLS_OPTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisTarget:
    """What a URL says. Its text form shows neither names nor passwords."""

    topology: Topology
    tls: bool
    hosts: tuple[tuple[str, int], ...] = field(repr=False)
    path: str = field(repr=False)
    service: str = field(repr=False)
    db: int
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    sentinel_username: str | None = field(repr=False)
    sentinel_password: str | None = field(repr=False)
    tls_options: dict[str, Any] = field(repr=False)


def parse_url(url: str) -> RedisTarget:
    """Read a Redis URL.

    Raises:
        SettingsError: It is malformed; the message says what is and repeats no part of it.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme not in _SCHEMES:
        raise bad_url(f"must start with one of {', '.join(f'{name}://' for name in _SCHEMES)}")
    topology, tls = _SCHEMES[scheme]
    rest, _, query = rest.partition("?")
    options = _options(query)
    authority, _, path = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    service, db = "", options.get("db")
    if topology == "unix":
        path = "/" + unquote(path)
        if hosts or path == "/":
            raise bad_url("unix:// takes an absolute path and no host: unix:///path/to/socket")
    else:
        parts = [unquote(part) for part in path.split("/") if part]
        if topology == "sentinel":
            if not parts:
                raise bad_url("redis+sentinel:// needs the service's name after the hosts: …/service")
            service = parts.pop(0)
        if parts:
            db = db or parts.pop(0)
        if parts:
            raise bad_url("has more after the hosts than it can mean")
    number = _database(db)
    if topology == "cluster" and number:
        raise bad_url("Redis Cluster has only database 0")
    return RedisTarget(
        topology=topology,
        tls=tls,
        hosts=() if topology == "unix" else _hosts(hosts, _DEFAULT_PORT[topology], single=topology == "single"),
        path=path,
        service=service,
        db=number,
        username=unquote(username) or options.get("username"),
        password=unquote(password) or options.get("password") or _password_in(options.get("password_file")),
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        tls_options=_tls_options(options, tls=tls),
    )


def bad_url(what: str) -> SettingsError:
    """The error for a URL; `what` must repeat no part of it."""
    return SettingsError(f"redis_url: {what}")


def _hosts(text: str, default_port: int, *, single: bool) -> tuple[tuple[str, int], ...]:
    hosts = []
    for part in text.split(","):
        found = _HOST.fullmatch(part)
        port = int(found[2] or default_port) if found else 0
        if not found or not 0 < port <= _LAST_PORT:
            raise bad_url("expected host or host:port after the scheme (an @, : or / in a password is percent-encoded)")
        hosts.append((unquote(found[1]).strip("[]"), port))
    if single and len(hosts) > 1:
        raise bad_url("takes one host; several need redis+sentinel:// or redis+cluster://")
    return tuple(hosts)


def _database(text: str | None) -> int:
    if text is not None and not re.fullmatch(r"[0-9]{1,5}", text):
        raise bad_url("the database must be a number")
    return int(text or 0)


def _password_in(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        password = Path(path).read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise bad_url(f"the password_file cannot be read: {type(error).__name__}") from None
    if not password:
        raise bad_url("the password_file is empty")
    return password


def _options(query: str) -> dict[str, str]:
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise bad_url("the options after ? must be name=value, joined by &") from None
    if not options.keys() <= set(_OPTIONS):
        raise bad_url(f"unknown option after ?; known are {', '.join(_OPTIONS)}")
    return options


def _tls_options(options: dict[str, str], *, tls: bool) -> dict[str, Any]:
    chosen: dict[str, Any] = {name: options[name] for name in _TLS_OPTIONS if name in options}
    if chosen and not tls:
        raise bad_url("the ssl_ options need a rediss scheme")
    if chosen.get("ssl_cert_reqs", "required") not in ("required", "optional", "none"):
        raise bad_url("ssl_cert_reqs must be required, optional or none")
    if chosen.get("ssl_check_hostname", "true") not in ("true", "false"):
        raise bad_url("ssl_check_hostname must be true or false")
    if "ssl_check_hostname" in chosen:
        chosen["ssl_check_hostname"] = chosen["ssl_check_hostname"] == "true"
    return chosen
