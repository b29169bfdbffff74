"""The store on Redis Cluster, behind Sentinel with a failover, and over TLS."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio import RedisCluster

from blocker.errors import CommitConflict, StoreUnavailable
from blocker.store.redis import Store
from tests.redis_server import RedisServer, free_port, server_binaries
from tests.store.publishing import publish, read_whole, until

if TYPE_CHECKING:
    from pathlib import Path


async def use_everything(store: Store) -> None:
    """Every operation once, and a repeated commit and flush."""
    before = await store.last_commit()
    first = await publish(store, "test", 1, [b"one", b"two" * 10**6, b"three" * 10**6])
    await store.commit(first, expected=0)
    second = await publish(store, "test", 2, [b"one"])
    with pytest.raises(CommitConflict):
        await publish(store, "test", 2, [b"two"])
    assert await store.heads() == {"test": second.head}
    assert await store.history("test") == [second, first]
    await read_whole(store, await store.manifest("test", 1))
    assert await store.wait_for_commit(before, 5) == await store.last_commit()
    assert await store.wait_for_commit(await store.last_commit(), 0.05) == await store.last_commit()
    for _ in range(2):
        await store.flush_hits("node", "boot", 1, {"cell": 3})
    assert await store.load_hits("node") == {"cell": 3}
    assert await store.hit_nodes() == ["node"]
    await store.set_checked("test", 5)
    assert await store.checked() == {"test": 5.0}
    await store.set_source_state("test", {"etag": "x"})
    assert await store.source_state("test") == {"etag": "x"}
    collected = await store.collect_orphans(grace_seconds=0, keep_serials=1)
    assert (collected.manifests, collected.blobs) == (1, 6)
    await read_whole(store, await store.manifest("test"))
    assert await store.ping() < 1
    assert await store.server_time() > 0
    assert (await store.info())["role"] == "master"


async def test_on_a_cluster(binary: Path, tmp_path: Path) -> None:
    with RedisServer(tmp_path, binary=binary, mode="cluster") as server:
        assert server.command("CLUSTER", "ADDSLOTS", *map(str, range(16384))) == b"+OK\r\n"
        url = server.url.replace("redis://", "redis+cluster://")
        async with await Store.open(url, "default") as store:
            assert isinstance(store._session.client, RedisCluster)
            await until(lambda: answers(store))
            await use_everything(store)
            epoch = await store.epoch()
            assert (await store.info())["redis_mode"] == "cluster"
            await server.akill()
            with pytest.raises(StoreUnavailable):
                await store.heads()
            await server.astart()  # it kept nothing but its slots
            await until(lambda: answers(store))
            assert await store.epoch() != epoch


async def test_a_cluster_with_a_part_away_is_unavailable(tmp_path: Path) -> None:
    with RedisServer(tmp_path, mode="cluster") as server:
        server.command("CLUSTER", "ADDSLOTS", "0", "1", "2")
        url = server.url.replace("redis://", "redis+cluster://")
        async with await Store.open(url, "default") as store:
            with pytest.raises(StoreUnavailable, match=r"cluster is down|cannot be reached"):
                await store.heads()


async def test_a_failover_behind_sentinel(binary: Path, tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path / "one", binary=binary, tcp=True) as one,
        RedisServer(tmp_path / "two", binary=binary, tcp=True, options=[f"replicaof 127.0.0.1 {one.port}"]) as two,
    ):
        await until(lambda: replicated(one, two))  # or the sentinel would look for replicas again in ten seconds only
        options = [
            f"sentinel monitor main 127.0.0.1 {one.port} 1",
            "sentinel down-after-milliseconds main 60000",  # a busy machine makes a server silent for a while
            "sentinel failover-timeout main 2000",
        ]
        with RedisServer(tmp_path / "sentinel", binary=binary, mode="sentinel", options=options) as sentinel:
            await until(lambda: knows_replica(sentinel))
            # The first sentinel of the URL is away, as one of three may be.
            url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main/1"
            async with await Store.open(url, "default") as store:
                await use_everything(store)
                await fail_over(store, one, two, sentinel)


async def fail_over(store: Store, one: RedisServer, two: RedisServer, sentinel: RedisServer) -> None:
    """Kill the master, go on with the replica, and let the old master come back."""
    head, epoch = await store.heads(), await store.epoch()
    await until(lambda: replicated(one, two))
    await one.akill()
    with pytest.raises(StoreUnavailable):
        await store.heads()
    assert sentinel.command("SENTINEL", "SET", "main", "down-after-milliseconds", "300") == b"+OK\r\n"

    async def recovered() -> bool:
        return (await store.info())["role"] == "master" and await store.heads() == head

    await until(recovered)
    assert await store.epoch() == epoch
    third = await publish(store, "test", 3, [b"three"])
    await store.flush_hits("node", "boot", 1, {"cell": 3})
    assert await store.load_hits("node") == {"cell": 3}
    assert await store.wait_for_commit("0-0", 5) == await store.last_commit()
    await one.astart()  # empty, and believes to be the master still
    assert await store.heads() == {"test": third.head}
    await publish(store, "test", 4, [b"four"])
    assert b"keys=" not in one.command("INFO", "keyspace")


async def test_over_tls(tmp_path: Path) -> None:
    server_and_port = tls_server(tmp_path)
    assert server_and_port is not None, "these tests need a redis-server that is built with TLS, as Debian's is"
    server, port = server_and_port
    with server:
        authority = f"ssl_ca_certs={tmp_path}/cert.pem"
        async with await Store.open(f"rediss://127.0.0.1:{port}?{authority}", "default") as store:
            await use_everything(store)
        async with await Store.open(f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none", "default") as store:
            assert len(await store.heads()) == 1
        for wrong in (f"rediss://127.0.0.1:{port}", f"redis://127.0.0.1:{port}",
                      f"rediss://localhost:{port}?{authority}&ssl_check_hostname=true"):  # fmt: skip
            async with await Store.open(wrong, "default") as store:
                with pytest.raises(StoreUnavailable):
                    await store.heads()


async def answers(store: Store) -> bool:
    """Whether the store can be used by now."""
    return len(await store.epoch()) > 0


async def replicated(master: RedisServer, replica: RedisServer) -> bool:
    """Whether a replica is up and has all that its master has."""
    told = dict(line.split(b":", 1) for line in replica.command("INFO", "replication").splitlines() if b":" in line)
    mine = dict(line.split(b":", 1) for line in master.command("INFO", "replication").splitlines() if b":" in line)
    return told.get(b"master_link_status") == b"up" and told[b"slave_repl_offset"] == mine[b"master_repl_offset"]


async def knows_replica(sentinel: RedisServer) -> bool:
    """Whether the sentinel has found the replica it may promote."""
    return b"slaves=1" in sentinel.command("INFO", "sentinel")


def tls_server(directory: Path) -> tuple[RedisServer, int] | None:
    """A server that speaks TLS too, and its port; None if no binary of this machine can."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "blocker test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    for number, binary in enumerate(server_binaries().values()):
        port = free_port()
        options = [f"tls-port {port}", "tls-auth-clients no", f"tls-cert-file {directory}/cert.pem",
                   f"tls-key-file {directory}/key.pem", f"tls-ca-cert-file {directory}/cert.pem"]  # fmt: skip
        server = RedisServer(directory / f"redis{number}", binary=binary, tcp=True, options=options)
        try:
            server.start()
        except AssertionError:
            server.close()
        else:
            server.stop()
            return server, port
    return None
