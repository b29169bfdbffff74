"""Signing in and out, and what must not come of it: others' forms, planted and replayed cookies, revoked tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blocker.control.auth import Credential, Principal
from blocker.control.console.gate import PLAIN_COOKIE, SECURE_COOKIE
from blocker.control.console.sessions import LONGEST_SECONDS, MOST_OF_A_TOKEN, MOST_SESSIONS, Sessions
from blocker.store.token import Role
from blocker.store.tokens import revoke_token, rotate_token
from tests.control.console_client import Browser
from tests.control.console_scene import ADMIN, DAY, Scene, console_scene
from tests.hits.support import Clock

if TYPE_CHECKING:
    import io
    from pathlib import Path

    import httpx

LOGIN, LOGOUT = "/console/login", "/console/logout"


def signed_out(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.headers.get("location")) == (303, LOGIN)


# --- the cookie -------------------------------------------------------------------------------------------------------


async def test_the_cookie_is_for_this_browser_alone(scene: Scene) -> None:
    token = await scene.token("vera", Role.VIEWER)
    async with Browser(scene) as browser:
        cookie = (await browser.sign_in(token)).headers["set-cookie"]
        name, *attributes = cookie.split("; ")
        assert name.startswith(f"{PLAIN_COOKIE}=")
        assert {one.lower() for one in attributes} == {"httponly", "path=/", "samesite=strict"}
        secure = (await browser.send(LOGIN, {"token": token}, origin=scene.address.replace("http:", "https:"))).headers
        name, *attributes = secure["set-cookie"].split("; ")
        assert name.startswith(f"{SECURE_COOKIE}=")
        assert {one.lower() for one in attributes} == {"httponly", "path=/", "samesite=strict", "secure"}
        assert token[13:] not in cookie + secure["set-cookie"]


async def test_each_sign_in_has_a_session_of_its_own(scene: Scene) -> None:
    token = await scene.token("vera", Role.VIEWER)
    async with Browser(scene) as browser:
        browser.client.cookies.set(PLAIN_COOKIE, "planted", domain="127.0.0.1", path="/")
        assert signed_out(await browser.get("/"))
        first = (await browser.sign_in(token)).cookies[PLAIN_COOKIE]
        assert first != "planted"
        browser.client.cookies.clear()
        browser.client.cookies.set(PLAIN_COOKIE, first)
        second = (await browser.sign_in(token)).cookies[PLAIN_COOKIE]
        assert second != first
        for name, good in ((first, False), ("planted", False), (second, True)):
            browser.client.cookies.clear()
            browser.client.cookies.set(PLAIN_COOKIE, name)
            assert signed_out(await browser.get("/")) is not good


async def test_a_session_is_good_for_nothing_after_signing_out(scene: Scene) -> None:
    async with Browser(scene) as browser:
        name = (await browser.sign_in(await scene.token("olof", Role.OPERATOR))).cookies[PLAIN_COOKIE]
        key = await browser.form_key()
        answer = await browser.send(LOGOUT, {"form_key": key})
        assert signed_out(answer)
        assert 'blocker=""' in answer.headers["set-cookie"]
        assert not browser.client.cookies
        browser.client.cookies.set(PLAIN_COOKIE, name)
        assert signed_out(await browser.get("/"))
        wish = {"form_key": key, "url": "http://one.example/", "policy": "default"}
        assert signed_out(await browser.send("/console/explain", wish))
        assert signed_out(await browser.send(LOGOUT, {"form_key": key}))


async def test_where_only_https_is_allowed_nobody_signs_in_over_http(tmp_path: Path, logged: io.StringIO) -> None:
    assert logged is not None
    async with console_scene(tmp_path, https_only=True) as scene, Browser(scene) as browser:
        token = await scene.token("vera", Role.VIEWER)
        assert (await browser.sign_in(token)).status_code == 403
        answer = await browser.send(LOGIN, {"token": token}, origin=scene.address.replace("http:", "https:"))
        name = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
        for cookie, good in ((PLAIN_COOKIE, False), (SECURE_COOKIE, True)):
            found = await browser.client.get("/", headers={"cookie": f"{cookie}={name}"})
            assert signed_out(found) is not good


# --- forms from elsewhere ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"}, {"sec_fetch_site": "none"},
        {"sec_fetch_site": "", "origin": "http://evil.example"}, {"sec_fetch_site": "", "origin": "null"},
        {"sec_fetch_site": "", "origin": ""}, {"sec_fetch_site": "", "origin": "http://["},
        {"sec_fetch_site": "", "origin": "http://127.0.0.1"},
    ],
    ids=str,
)  # fmt: skip
async def test_forms_from_elsewhere_do_nothing(scene: Scene, headers: dict[str, str]) -> None:
    token = await scene.token("olof", Role.OPERATOR)
    await scene.publish("mine", [f"http://site{number}.example/x" for number in range(2000)])
    assert await scene.publish("mine", ["http://one.example/a"], base=1) == "waiting"
    proposal = (await scene.store.drafts("proposals"))["mine"]
    async with Browser(scene) as browser:
        assert (await browser.send(LOGIN, {"token": token}, **headers)).status_code == 403
        await browser.sign_in(token)
        key = await browser.form_key()
        wish = {"form_key": key, "proposal": proposal.id, "serial": "1", "read": "yes"}
        for path, fields in (
            ("/console/proposals/mine/approve", wish), ("/console/explain", {"form_key": key, "url": "one.example"}),
            ("/console/proposals/mine/reject", {"form_key": key, "proposal": proposal.id}), (LOGOUT, {"form_key": key}),
        ):  # fmt: skip
            assert (await browser.send(path, fields, **headers)).status_code == 403, path
        assert (await browser.get("/")).status_code == 200
        assert (await scene.store.drafts("proposals"))["mine"] == proposal
        # Over plain http browsers send no Sec-Fetch-Site.
        assert (await browser.send("/console/proposals/mine/approve", wish, sec_fetch_site="")).status_code == 303
        assert (await scene.store.heads())["mine"].serial == 2


async def test_forms_need_what_only_this_session_knows(scene: Scene) -> None:
    await scene.publish("mine", ["http://one.example/a"])
    async with Browser(scene) as browser, Browser(scene) as other:
        await browser.sign_in(await scene.token("olof", Role.OPERATOR))
        await other.sign_in(await scene.token("otto", Role.OPERATOR))
        foreign = await other.form_key()
        for key in ({}, {"form_key": ""}, {"form_key": "x" * 43}, {"form_key": foreign}, {"form_key": "å"}):
            answer = await browser.send("/console/explain", {**key, "url": "one.example"})
            assert answer.status_code == 403
            assert "of another session" in answer.text
            assert (await browser.send(LOGOUT, key or {"form_key": "none"})).status_code == 403
        assert foreign != await browser.form_key()
        assert (await browser.submit("/console/explain", url="one.example")).status_code == 200


async def test_what_is_no_form_is_refused(scene: Scene) -> None:
    await scene.publish("mine", ["http://one.example/a"])
    headers = {"origin": scene.address, "content-type": "application/x-www-form-urlencoded"}
    async with Browser(scene) as browser:
        await browser.sign_in(await scene.token("olof", Role.OPERATOR))
        post = browser.client.post
        assert (await post("/console/explain", json={}, headers={"origin": scene.address})).status_code == 415
        for body, status in ((b"x=1", 422), (b"url=a&url=b", 422), (b"url=" + b"a" * 300_000, 413)):
            assert (await post("/console/explain", content=body, headers=headers)).status_code == status
        assert (await browser.submit("/console/explain", url="one.example", policy="none")).status_code == 422
        wish = f"form_key={await browser.form_key()}&url=%FF"
        assert (await post("/console/explain", content=wish, headers=headers)).status_code == 422


# --- the token behind it ----------------------------------------------------------------------------------------------


async def test_wrong_tokens_are_limited_together_with_the_api(scene: Scene) -> None:
    good = await scene.token("vera", Role.VIEWER)
    async with Browser(scene) as browser:
        wrong = ["", "x", f"blk_00000000_{'x' * 43}", good[:-1] + ("A" if good[-1] != "A" else "B"), f"{good}x"]
        answers = [await browser.sign_in(text) for text in wrong]
        assert {answer.status_code for answer in answers} == {401}
        assert len({answer.content for answer in answers}) == 1
        assert not any("set-cookie" in answer.headers for answer in answers)
        assert [(await browser.client.get("/v1/whoami")).status_code for _ in range(6)] == [401] * 5 + [429]
        assert (await browser.sign_in("x")).status_code == 429
        assert (await browser.sign_in(f" {good}\n")).headers["location"] == "/"
        assert (await browser.get("/")).status_code == 200


async def test_a_revoked_token_ends_its_sessions_at_the_next_click(scene: Scene) -> None:
    async with Browser(scene) as browser:
        await browser.sign_in(await scene.token("vera", Role.VIEWER))
        assert (await browser.get("/")).status_code == 200
        await revoke_token(scene.store, "vera", now=scene.clock(), actor=ADMIN)
        for _ in range(12):
            assert signed_out(await browser.get("/"))
        # None of those was a guess.
        assert (await browser.sign_in("x")).status_code == 401


async def test_a_session_lasts_no_longer_than_its_secret(scene: Scene) -> None:
    async with Browser(scene) as old, Browser(scene) as new:
        await old.sign_in(await scene.token("vera", Role.VIEWER))
        _, text = await rotate_token(scene.store, "vera", grace=600, now=scene.clock(), seconds=DAY, actor=ADMIN)
        await new.sign_in(text)
        scene.clock.now += 601
        assert signed_out(await old.get("/"))
        assert (await new.get("/")).status_code == 200


async def test_sessions_end_when_nobody_uses_them_and_after_a_day_of_work(scene: Scene) -> None:
    token = await scene.token("vera", Role.VIEWER)
    async with Browser(scene) as browser:
        await browser.sign_in(token)
        scene.clock.now += 1799
        assert (await browser.get("/")).status_code == 200
        scene.clock.now += 1801
        assert signed_out(await browser.get("/"))
        await browser.sign_in(token)
        for _ in range(int(LONGEST_SECONDS // 1200) - 1):
            scene.clock.now += 1200
            assert (await browser.get("/")).status_code == 200
        scene.clock.now += 1200
        assert signed_out(await browser.get("/"))


async def test_other_roles_count_from_the_next_click_on(scene: Scene) -> None:
    async with Browser(scene) as browser:
        await browser.sign_in(await scene.token("vera", Role.OPERATOR))
        assert (await browser.get("/console/explain")).status_code == 200
        await revoke_token(scene.store, "vera", now=scene.clock(), actor=ADMIN)
        await scene.token("vera", Role.OPERATOR)
        assert signed_out(await browser.get("/console/explain")), "another token of the same name is another token"


def test_sessions_are_bounded() -> None:
    clock = Clock(0.0)
    sessions = Sessions(1800.0, clock)
    who = Principal(name="n", person="p", roles=frozenset({Role.VIEWER}), lists=frozenset())

    def begin(id: str) -> str:  # noqa: A002 - the field's name
        clock.now += 0.001
        return sessions.begin(who, Credential(id=id, digest="d", until=9e9))[0]

    first = begin("one")
    kept = [begin("one") for _ in range(MOST_OF_A_TOKEN - 1)]
    assert sessions.find(first) is not None
    begin("one")
    assert sessions.find(first) is not None, "it was used last"
    assert sessions.find(kept[0]) is None, "it was quiet for longest"
    for number in range(MOST_SESSIONS * 2):
        begin(str(number))
    assert len(sessions) == MOST_SESSIONS
    clock.now += 1800
    begin("late")
    assert len(sessions) == 1
    assert first not in repr(vars(sessions))
