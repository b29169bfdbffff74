"""Publishing over HTTP, by people with tokens: a real server, a real Redis, a real follower's store behind it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from fastapi.routing import APIRoute

from blocker.control.app import create_app
from blocker.control.office import Office
from blocker.control.server import ControlServer
from blocker.gateways.engine import VerdictEngine
from blocker.hits.counters import HitCounter
from blocker.hits.exporter import Exporter
from blocker.settings import Settings
from blocker.store.audit import Actor
from blocker.store.redis import Store
from blocker.store.sealing import Keyring
from blocker.store.token import Role
from blocker.store.tokens import create_token, revoke_token, rotate_token
from tests.control.conftest import START
from tests.control.route_roles import ROUTE_ROLES
from tests.control.support import problem
from tests.hits.support import Clock, Followed, MemoryStore
from tests.ingest.checks import assert_whole
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fastapi import FastAPI

KEYRING = Keyring(lookup=b"0123456789abcdef", seal=bytes(range(32)))
ADMIN = Actor("cli", "Admin")
DAY = 86_400.0
LINES = "http://one.example/a\nhttp://two.example/b/\n"
NEW = {"if-none-match": "*"}


@dataclass
class Desk:
    """A control plane with a store."""

    redis: RedisServer
    store: Store
    client: httpx.AsyncClient
    clock: Clock
    api: FastAPI
    logged: io.StringIO

    async def token(
        self, name: str, *roles: Role, lists: tuple[str, ...] = ("mine",), person: str = ""
    ) -> dict[str, str]:
        """The header of a fresh token."""
        _, text = await create_token(
            self.store, name=name, person=person or name, roles=roles, lists=lists, now=self.clock(), seconds=DAY,
            actor=ADMIN,
        )  # fmt: skip
        return {"authorization": f"Bearer {text}"}

    async def put(self, who: dict[str, str], text: str, headers: dict[str, str], **query: str) -> httpx.Response:
        """Push a whole list."""
        return await self.client.put(
            "/v1/lists/mine/draft", params={"format": "url", **query}, content=text, headers={**who, **headers}
        )

    async def publish(self, who: dict[str, str], serial: int, **wish: Any) -> httpx.Response:  # noqa: ANN401 - JSON
        """Publish the draft upon a serial."""
        return await self.client.post("/v1/lists/mine/publish", json=wish, headers={**who, "if-match": f'"{serial}"'})


@pytest.fixture
async def desk(tmp_path: Path, logged: io.StringIO) -> AsyncIterator[Desk]:
    async with RedisServer(tmp_path / "redis", aof=True) as redis:
        store = await Store.open(redis.url, "test", keyring=KEYRING)

        async def opened() -> Store:
            return store

        clock, follower, settings = Clock(START), Followed(), Settings()
        hits = HitCounter(MemoryStore(), node="node", zone=ZoneInfo("UTC"), clock=clock, boot="boot")
        engine = VerdictEngine(follower, hits)
        exporter = Exporter(engine.meters, hits, follower, clock=clock)
        office = Office(opened, KEYRING, settings.guards, tmp_path)
        app = create_app(engine, follower, settings, exporter, clock=clock, office=office)
        server = ControlServer(app, "127.0.0.1", 0)
        await server.start()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
            yield Desk(redis, store, client, clock, app.app, logged)  # type: ignore[arg-type]
        await server.stop()
        await store.close()


# --- who may do what --------------------------------------------------------------------------------------------------


def routes(api: FastAPI) -> set[tuple[str, str]]:
    return {
        (method, route.path) for route in api.routes if isinstance(route, APIRoute) for method in route.methods or ()
    }


async def test_every_route_has_its_role(desk: Desk) -> None:
    described = {(method.upper(), path) for path, methods in desk.api.openapi()["paths"].items() for method in methods}
    assert described <= ROUTE_ROLES.keys()
    assert {key for key, role in ROUTE_ROLES.items() if role} <= described
    scheme = desk.api.openapi()["components"]["securitySchemes"]
    assert [one["scheme"] for one in scheme.values()] == ["bearer"]


async def test_roles_are_needed_and_are_enough(desk: Desk) -> None:
    who = {role: await desk.token(role.value, role) for role in Role}
    stranger = await desk.token("stranger", Role.MAINTAINER, lists=("other",))
    enough = {
        Role.VIEWER: set(Role), Role.MAINTAINER: {Role.MAINTAINER, Role.OPERATOR},
        Role.APPROVER: {Role.APPROVER, Role.OPERATOR}, Role.OPERATOR: {Role.OPERATOR},
    }  # fmt: skip
    for (method, path), role in ROUTE_ROLES.items():
        if role is None:
            continue
        url = path.format(name="mine")
        desk.clock.now += 60  # the failures of before are forgotten
        assert (await desk.client.request(method, url)).status_code == 401, (method, path)
        wrong = {"authorization": f"Bearer blk_00000000_{'x' * 43}"}
        assert (await desk.client.request(method, url, headers=wrong)).status_code == 401
        for holder in Role:
            answer = await desk.client.request(method, url, headers=who[holder])
            assert (answer.status_code not in (401, 403)) is (holder in enough[role]), (method, path, holder)
        if role is Role.MAINTAINER:
            problem(await desk.client.request(method, url, headers=stranger), 403)


async def test_every_token_that_is_not_good_gets_the_same_answer(desk: Desk) -> None:
    good = await desk.token("good", Role.VIEWER)
    expired = await desk.token("expired", Role.VIEWER)
    revoked = await desk.token("revoked", Role.VIEWER)
    await revoke_token(desk.store, "revoked", now=desk.clock(), actor=ADMIN)
    text = good["authorization"]
    desk.clock.now += 100
    bad = ["", "Bearer", "Bearer x", f"Basic {text[7:]}", text[:-1] + ("A" if text[-1] != "A" else "B"), text + "x",
           revoked["authorization"]]  # fmt: skip
    answers = []
    for value in bad:
        answers.append(await desk.client.get("/v1/whoami", headers={"authorization": value}))
    desk.clock.now += DAY
    answers.append(await desk.client.get("/v1/whoami", headers=expired))
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["www-authenticate"] for answer in answers} == {'Bearer realm="blocker"'}


async def test_wrong_tokens_are_limited_and_right_ones_pass(desk: Desk) -> None:
    good = await desk.token("good", Role.VIEWER)
    seen = [(await desk.client.get("/v1/whoami")).status_code for _ in range(12)]
    assert seen == [401] * 10 + [429] * 2
    assert (await desk.client.get("/v1/whoami", headers=good)).json()["name"] == "good"
    desk.clock.now += 1
    assert [(await desk.client.get("/v1/whoami")).status_code for _ in range(2)] == [401, 429]


async def test_a_rotated_token_is_good_for_a_while(desk: Desk) -> None:
    old = await desk.token("mine", Role.VIEWER)
    _, text = await rotate_token(desk.store, "mine", grace=3600, now=desk.clock(), seconds=DAY, actor=ADMIN)
    new = {"authorization": f"Bearer {text}"}
    for token in (old, new):
        assert (await desk.client.get("/v1/whoami", headers=token)).status_code == 200
    desk.clock.now += 3601
    assert (await desk.client.get("/v1/whoami", headers=old)).status_code == 401
    assert (await desk.client.get("/v1/whoami", headers=new)).status_code == 200
    assert set((await desk.store.tokens_used()).values()) == {desk.clock() // 3600 * 3600}


# --- drafts -----------------------------------------------------------------------------------------------------------


async def test_from_a_push_to_a_list(desk: Desk) -> None:
    who = await desk.token("anna", Role.MAINTAINER)
    pushed = await desk.put(who, LINES + "# comment\n", NEW, mode="shadow", reason="first")
    assert pushed.status_code == 200
    told = pushed.json()
    assert (told["entries"], told["lines"], told["bad"], told["mode"], told["person"]) == (2, 3, 0, "shadow", "anna")
    assert await desk.store.heads() == {}
    assert (await desk.client.get("/v1/lists/mine/draft", headers=who)).json()["id"] == told["id"]
    told = (await desk.publish(who, 0, mode="enforce", dry_run=True)).json()
    assert (told["status"], told["dry_run"]) == ("published", True)
    done = await desk.publish(who, 0, mode="enforce")
    assert (done.status_code, done.json()["serial"]) == (200, 1)
    assert len(await assert_whole(desk.store, KEYRING, "mine")) == 2
    log = await desk.client.get("/v1/lists/mine/log", headers=who)
    assert log.headers["etag"] == '"1"'
    assert [row["reason"] for row in log.json()["serials"]] == ["first"]
    records = [record.fields async for record in desk.store.audit_records()]
    assert [(record["action"], record["actor"], record["person"]) for record in records[-2:]] == [
        ("draft", "token:anna", "anna"), ("publish", "token:anna", "anna"),
    ]  # fmt: skip


async def test_a_change_and_the_way_back(desk: Desk) -> None:
    who = await desk.token("anna", Role.MAINTAINER)
    await desk.put(who, LINES, NEW)
    first = (await desk.publish(who, 0)).json()
    change = {"add": ["http://three.example/c", {"url": "four.example/d", "reference": "X-4"}],
              "remove": ["http://one.example/a"]}  # fmt: skip
    told = await desk.client.patch("/v1/lists/mine/draft", json=change, headers={**who, "if-match": '"1"'})
    assert (told.status_code, told.json()["added"], told.json()["removed"]) == (200, 2, 1)
    assert (await desk.publish(who, 1)).json()["serial"] == 2
    back = await desk.client.post("/v1/lists/mine/rollback", json={"serial": 1}, headers={**who, "if-match": '"2"'})
    assert (back.json()["serial"], back.json()["digest"]) == (3, first["digest"])
    bad = {"add": ["http://fine.example/", "http://marked entry/"], "remove": []}
    answer = await desk.client.patch("/v1/lists/mine/draft", json=bad, headers={**who, "if-match": '"3"'})
    assert [error["field"] for error in problem(answer, 422)["errors"]] == ["add.1"]  # type: ignore[attr-defined]
    assert "marked" not in answer.text


async def test_preconditions(desk: Desk) -> None:
    who = await desk.token("anna", Role.MAINTAINER)
    problem(await desk.put(who, LINES, {}), 428)
    problem(await desk.put(who, LINES, {"if-match": "seven"}), 422)
    problem(await desk.put(who, LINES, {"if-match": '"4"'}), 412)
    problem(await desk.publish(who, 0), 404)
    await desk.put(who, LINES, NEW)
    problem(await desk.publish(who, 7), 412)
    await desk.publish(who, 0)
    problem(await desk.put(who, LINES, NEW), 412)
    problem(await desk.client.get("/v1/lists/absent/log", headers=who), 404)


async def test_bad_files_change_nothing(desk: Desk) -> None:
    who = await desk.token("anna", Role.MAINTAINER)
    for content, query in (
        ("not an entry\n" * 5, {}), (b"\x00binary", {}), ("", {}), (b"\x1f\x8bcut", {}), (LINES, {"bare": "other"}),
        (LINES, {"format": "none"}), (LINES, {"unknown": "1"}), (LINES, {"domain_kind": "host"}),
    ):  # fmt: skip
        answer = await desk.client.put(
            "/v1/lists/mine/draft", params={"format": "url", **query}, content=content, headers={**who, **NEW}
        )
        assert answer.status_code in (409, 422), (content, query)
        assert answer.headers["content-type"] == "application/problem+json"
    assert await desk.store.drafts("drafts") == {}


async def test_an_upload_that_is_cut_changes_nothing(desk: Desk) -> None:
    who = await desk.token("anna", Role.MAINTAINER)

    async def cut() -> AsyncIterator[bytes]:
        yield LINES.encode()
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await desk.client.put("/v1/lists/mine/draft", params={"format": "url"}, content=cut(), headers={**who, **NEW})
    assert (await desk.client.get("/v1/lists/mine/draft", headers=who)).status_code == 404


# --- two people -------------------------------------------------------------------------------------------------------


async def test_what_waits_is_approved_by_somebody_else(desk: Desk) -> None:
    anna = await desk.token("anna", Role.MAINTAINER, Role.APPROVER)
    twin = await desk.token("annas-other", Role.APPROVER, person="anna")
    bert = await desk.token("bert", Role.APPROVER)
    await desk.put(anna, "".join(f"http://site{number}.example/x\n" for number in range(2000)), NEW)
    await desk.publish(anna, 0)
    await desk.put(anna, LINES, {"if-match": '"1"'})
    told = await desk.publish(anna, 1)
    assert (told.status_code, told.json()["findings"][0]["guard"]) == (202, "shrink")
    wish = {"proposal": told.json()["proposal"]}
    shown = (await desk.client.get("/v1/proposals", headers=bert)).json()["proposals"]
    assert [(one["id"], one["state"]) for one in shown] == [(wish["proposal"], "waiting")]
    for own in (anna, twin):
        problem(await desk.client.post("/v1/lists/mine/approve", json=wish, headers={**own, "if-match": "1"}), 403)
    other = {"proposal": "0" * 16}
    problem(await desk.client.post("/v1/lists/mine/approve", json=other, headers={**bert, "if-match": "1"}), 409)
    done = await desk.client.post("/v1/lists/mine/approve", json=wish, headers={**bert, "if-match": "1"})
    assert (done.status_code, done.json()["serial"]) == (200, 2)
    await desk.put(anna, "# none\n", {"if-match": "2"})
    wish = {"proposal": (await desk.publish(anna, 2)).json()["proposal"], "reason": "no"}
    gone = await desk.client.post("/v1/lists/mine/reject", json=wish, headers=bert)
    assert gone.json()["state"] == "rejected"
    assert len(await assert_whole(desk.store, KEYRING, "mine")) == 2


async def test_what_a_guard_refuses(desk: Desk) -> None:
    who = await desk.token("anna", Role.MAINTAINER)
    await desk.put(who, "http://*.co.uk\n", NEW)
    told = await desk.publish(who, 0)
    assert (told.status_code, told.json()["status"]) == (409, "refused")
    assert "co.uk" not in told.text
    assert await desk.store.heads() == {}


# --- once -------------------------------------------------------------------------------------------------------------


async def test_a_change_that_is_asked_for_again_is_answered_again(desk: Desk) -> None:
    who = await desk.token("anna", Role.MAINTAINER)
    key = {"idempotency-key": "a-1"}
    first = await desk.put(who, LINES, {**NEW, **key})
    again = await desk.put(who, LINES, {**NEW, **key})
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    problem(await desk.put(who, LINES + "http://more.example/\n", {**NEW, **key}), 422)
    headers = {**who, **key, "if-match": '"0"'}
    answers = await asyncio.gather(
        *(desk.client.post("/v1/lists/mine/publish", json={}, headers=headers) for _ in range(4))
    )
    done = [answer for answer in answers if answer.status_code == 200]
    assert done
    assert {json.dumps(answer.json()) for answer in done} == {json.dumps(done[0].json())}
    assert (await desk.client.post("/v1/lists/mine/publish", json={}, headers=headers)).json() == done[0].json()
    assert (await desk.store.heads())["mine"].serial == 1
    other = await desk.token("bert", Role.MAINTAINER)
    problem(await desk.client.post("/v1/lists/mine/publish", json={}, headers={**headers, **other}), 404)
    problem(await desk.put(who, LINES, {"if-match": "1", "idempotency-key": "x" * 201}), 422)


def events(text: str) -> list[tuple[str, Any]]:
    """Name and data of each event of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


async def test_progress_is_told_to_whoever_asks(desk: Desk) -> None:
    who = {**await desk.token("anna", Role.MAINTAINER), "accept": "text/event-stream"}
    await desk.put(who, "".join(f"http://site{number}.example/x\n" for number in range(50_000)), NEW)
    answer = await desk.publish(who, 0)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *progress, (name, last) = events(answer.text)
    assert {event for event, _ in progress} == {"progress"}
    assert {data["phase"] for _, data in progress} <= {"guards", "plan", "upload"}
    assert (name, last["status"], last["body"]["serial"]) == ("result", 200, 1)
    ((name, told),) = events((await desk.publish(who, 1)).text)
    assert (name, told["status"]) == ("problem", 404)


# --- marks ------------------------------------------------------------------------------------------------------------


async def test_nothing_of_a_push_or_a_token_is_told(desk: Desk) -> None:
    who = await desk.token("anna", Role.MAINTAINER)
    secret = who["authorization"].rpartition("_")[2]
    mark = "zzmarkzz"
    good = f"http://{mark}.example/{mark}\n"
    seen = [
        await desk.put(who, good, NEW),
        await desk.put(who, f"http://{mark} bad/\n", NEW),
        await desk.put(who, good, {"if-match": '"9"'}),
        await desk.publish(who, 0),
        await desk.client.patch(
            "/v1/lists/mine/draft", json={"remove": [f"{mark}.example/x"]}, headers={**who, "if-match": "1"}
        ),
        await desk.client.patch("/v1/lists/mine/draft", json={mark: 1}, headers={**who, "if-match": "1"}),
        await desk.client.get("/v1/lists/mine/log", headers=who),
        await desk.client.get("/v1/whoami", headers={"authorization": f"Bearer {mark}"}),
        await desk.client.get("/metrics"),
    ]
    for answer in seen:
        assert mark not in answer.text
        assert secret not in answer.text
    await asyncio.to_thread(desk.redis.command, "SAVE")
    kept = b"".join(path.read_bytes() for path in desk.redis.directory.rglob("*") if path.is_file())
    for text in (mark, secret):
        assert text not in desk.logged.getvalue()
        assert text.encode() not in kept
