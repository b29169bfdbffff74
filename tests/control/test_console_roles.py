"""The console's routes: who may see and do what, held against the table of roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fastapi.routing import APIRoute

from blocker.store.token import Role
from tests.control.console_client import Browser
from tests.control.console_scene import LISTED, Scene, console_scene
from tests.control.route_roles import CONSOLE_ROLES

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.control.conftest import ControlNode

ENOUGH = {
    Role.VIEWER: set(Role), Role.APPROVER: {Role.APPROVER, Role.OPERATOR}, Role.OPERATOR: {Role.OPERATOR},
}  # fmt: skip
LOGIN = "/console/login"


@pytest.fixture
async def scene(tmp_path: Path, logged: io.StringIO) -> AsyncIterator[Scene]:
    assert logged is not None
    async with console_scene(tmp_path) as made:
        await made.fill()
        yield made


async def test_every_route_is_in_the_table(scene: Scene) -> None:
    def routes(parent: object) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for route in getattr(parent, "routes", ()):
            if isinstance(route, APIRoute):
                found |= {(method, route.path) for method in route.methods or ()}
            else:
                found |= routes(getattr(route, "original_router", route))
        return found

    console = {key for key in routes(scene.api.router) if key[1] == "/" or key[1].startswith("/console")}
    assert console == CONSOLE_ROLES.keys()
    assert not any(path.startswith("/console") for path in scene.api.openapi()["paths"])


async def test_roles_are_needed_and_are_enough(scene: Scene) -> None:
    fields = {"proposal": "0" * 16, "serial": "1", "read": "yes", "reason": "", "url": LISTED, "policy": "default"}
    accepted = {
        "approve": ("proposal", "serial", "read"),
        "reject": ("proposal", "reason"),
        "explain": ("url", "policy"),
    }
    for holder in (None, *Role):
        async with Browser(scene) as browser:
            key = "none"
            if holder is not None:
                assert (await browser.sign_in(await scene.token(holder.value, holder))).headers["location"] == "/"
                key = await browser.form_key()
            for (method, path), role in CONSOLE_ROLES.items():
                if role is None:
                    continue
                url = path.format(name="iwf")
                if method == "GET":
                    answer = await browser.get(url)
                else:
                    own = {name: fields[name] for name in accepted[path.rpartition("/")[2]]}
                    answer = await browser.send(url, {"form_key": key, **own})
                if holder is None:
                    assert (answer.status_code, answer.headers["location"]) == (303, LOGIN), (method, path)
                else:
                    refused = answer.status_code == 403
                    assert refused is (holder not in ENOUGH[role]), (method, path, holder)
                    assert answer.status_code in (200, 403, 404, 409), (method, path, holder)


async def test_nothing_is_told_before_signing_in(scene: Scene) -> None:
    async with Browser(scene) as browser:
        page = (await browser.get(LOGIN)).text
        for path in ("/", "/console/hits", "/console/proposals"):
            assert (await browser.get(path)).content == b""
    for secret in ("iwf", "police", "sto-proxy-1", "Anna", "9475"):
        assert secret not in page


async def test_pages_say_only_what_a_role_may_see(scene: Scene) -> None:
    async with Browser(scene) as browser:
        await browser.sign_in(await scene.token("vera", Role.VIEWER))
        home = (await browser.get("/")).text
        assert "/console/explain" not in home
        assert "lists.police.example:443: the certificate has expired" in home
        changes = (await browser.get("/console/changes")).text
        assert "appeals of October" in changes
        assert "Anna Lind" not in changes
        assert "<button>Approve" not in (await browser.get("/console/proposals")).text
    async with Browser(scene) as browser:
        await browser.sign_in(await scene.token("otto", Role.OPERATOR))
        changes = (await browser.get("/console/changes")).text
        assert "Anna Lind" in changes
        assert "token-create" in changes
        for path in ("/", "/console/hits", "/console/changes", "/console/proposals", "/console/explain"):
            assert "http://site" not in (await browser.get(path)).text, "no rule is shown that nobody asked for"


async def test_a_node_without_a_store_has_no_console(node: ControlNode) -> None:
    client = node.client
    assert (await client.get("/")).headers["location"] == "/docs"
    assert (await client.get(LOGIN)).status_code == 404
