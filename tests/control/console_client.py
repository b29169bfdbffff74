"""A browser without a screen: keeps cookies, and sends forms as browsers do."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Self

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.control.console_scene import Scene

FORM_KEY = re.compile(r'name="form_key" value="([^"]+)"')


class Browser:
    """One browser; `async with` it."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.client = httpx.AsyncClient(base_url=scene.address, timeout=60)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_args: object) -> None:
        await self.client.aclose()

    async def get(self, path: str) -> httpx.Response:
        """Look at a page; redirects are not followed."""
        return await self.client.get(path)

    async def send(self, path: str, fields: Mapping[str, str], **headers: str) -> httpx.Response:
        """Send a form as from a page of the console; a header that is an empty text is left out."""
        sent = {"origin": self.scene.address, "sec-fetch-site": "same-origin"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return await self.client.post(
            path, data=dict(fields), headers={name: value for name, value in sent.items() if value}
        )

    async def submit(self, path: str, page: str = "/", **fields: str) -> httpx.Response:
        """Send a form of a page, with what it carries."""
        return await self.send(path, {"form_key": await self.form_key(page), **fields})

    async def form_key(self, page: str = "/") -> str:
        """What the forms of a page carry."""
        found = FORM_KEY.search((await self.get(page)).text)
        assert found, "nobody is signed in"
        return html.unescape(found[1])

    async def sign_in(self, token: str) -> httpx.Response:
        """Sign in."""
        return await self.send("/console/login", {"token": token})
