from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blocker.errors import SettingsError
from blocker.store.connection import connect
from blocker.store.url import RedisTarget, parse_url

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t"  # noqa: S105 - what must not be shown


def test_one_server() -> None:
    target = parse_url("redis://user:p%40ss@redis.example:6380/3")
    assert (target.topology, target.tls, target.hosts) == ("single", False, (("redis.example", 6380),))
    assert (target.username, target.password, target.db) == ("user", "p@ss", 3)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("redis://localhost", (("localhost", 6379),)),
        ("rediss://localhost/", (("localhost", 6379),)),
        ("redis://[::1]:7000", (("::1", 7000),)),
        ("redis://[::1]", (("::1", 6379),)),
        ("redis+cluster://a,b:7001,[::1]:7002", (("a", 6379), ("b", 7001), ("::1", 7002))),
        ("redis+sentinel://a,b:7001/master", (("a", 26379), ("b", 7001))),
    ],
)
def test_hosts_and_default_ports(url: str, hosts: tuple[tuple[str, int], ...]) -> None:
    assert parse_url(url).hosts == hosts


@pytest.mark.parametrize(
    ("url", "tls"),
    [("redis+sentinel://h/master", False), ("rediss+sentinel://h/master/2", True)],
)
def test_sentinel(url: str, tls: bool) -> None:
    target = parse_url(url + "?sentinel_username=su&sentinel_password=sp")
    assert (target.topology, target.tls, target.service) == ("sentinel", tls, "master")
    assert (target.sentinel_username, target.sentinel_password) == ("su", "sp")
    assert target.db == (2 if tls else 0)


def test_unix_socket() -> None:
    target = parse_url("unix:///run/a%20b/redis.sock?db=4&password=p")
    assert (target.path, target.db, target.password) == ("/run/a b/redis.sock", 4, "p")


def test_tls_options() -> None:
    target = parse_url("rediss://h?ssl_ca_certs=/ca.pem&ssl_check_hostname=false&ssl_cert_reqs=none")
    assert target.tls_options == {"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False, "ssl_cert_reqs": "none"}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"http://u:{SECRET}@h", "must start with one of redis://"),
        (f"redis:{SECRET}", "must start"),
        (SECRET, "must start"),
        (f"redis://u:{SECRET}@", "expected host or host:port"),
        (f"redis://u:{SECRET}@h:port", "expected host or host:port"),
        (f"redis://u:{SECRET}@h:0", "expected host or host:port"),
        (f"redis://u:{SECRET}@h:65536", "expected host or host:port"),
        (f"redis://u:{SECRET}@[::1", "expected host or host:port"),
        (f"redis://u:{SECRET}/x@h", "database must be a number"),
        (f"redis://u:{SECRET}?x@h", "name=value"),
        (f"redis://u:{SECRET}@one,two", "takes one host"),
        (f"redis://u:{SECRET}@h/{SECRET}", "database must be a number"),
        (f"redis://u:{SECRET}@h/1/2", "more after the hosts"),
        (f"redis://u:{SECRET}@h?{SECRET}=1", "unknown option"),
        (f"redis://u:{SECRET}@h?{SECRET}", "name=value"),
        (f"redis://u:{SECRET}@h?ssl_ca_certs=/x", "need a rediss scheme"),
        (f"rediss://u:{SECRET}@h?ssl_cert_reqs={SECRET}", "ssl_cert_reqs must be"),
        (f"rediss://u:{SECRET}@h?ssl_check_hostname={SECRET}", "ssl_check_hostname must be"),
        (f"redis+sentinel://u:{SECRET}@h", "needs the service's name"),
        (f"redis+sentinel://u:{SECRET}@h/s/x", "database must be a number"),
        (f"redis+cluster://u:{SECRET}@h/1", "only database 0"),
        (f"unix://{SECRET}", "absolute path"),
        (f"unix://u:{SECRET}@/", "absolute path"),
    ],
)
def test_a_bad_url_is_refused_and_never_shown(url: str, says: str) -> None:
    for read in (parse_url, connect):
        with pytest.raises(SettingsError, match=f"redis_url: .*{says}") as caught:
            read(url)
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:s3cr3t@h", "unix://u:s3cr3t@/s3cr3t", "redis+sentinel://u:s3cr3t@h/s?sentinel_password=s3cr3t",
        "redis+cluster://u:s3cr3t@h",
    ],
)  # fmt: skip
def test_a_target_does_not_show_its_secrets(url: str) -> None:
    target = parse_url(url)
    assert isinstance(target, RedisTarget)
    assert SECRET not in repr(target)


def test_a_password_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss/word\n", "utf-8")
    target = parse_url(f"redis://blocker@localhost/0?password_file={file}")
    assert (target.username, target.password) == ("blocker", "p@ss/word")
    file.write_text("another", "utf-8")
    assert parse_url(f"redis://blocker@localhost/0?password_file={file}").password == "another"  # noqa: S105 - of nobody


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff"])
def test_a_password_file_that_cannot_be_used_is_told(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"the password_file (cannot be read|is empty)"):
        parse_url(f"redis://blocker@localhost/0?password_file={file}")
