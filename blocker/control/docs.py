"""`/docs`: the OpenAPI document as one static page.

The usual viewers load their scripts from a content network, which an internet provider's management network does not
reach and which would learn who runs a blocker. This page loads nothing and runs nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from blocker.control.reply import Reply
from blocker.control.stop_page import page_environment, page_policy


@dataclass(frozen=True, slots=True)
class _Response:
    status: str
    description: str
    example: str


@dataclass(frozen=True, slots=True)
class _Operation:
    method: str
    path: str
    anchor: str
    summary: str
    description: str
    parameters: list[dict[str, Any]]
    body: str
    responses: list[_Response]


def docs_page(api: dict[str, Any]) -> Reply:
    """The page for an OpenAPI document."""
    environment = page_environment()
    style = environment.get_template("style.css.j2").render().strip()
    operations = [
        _operation(method.upper(), path, operation)
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    ]
    body = environment.get_template("docs.html.j2").render(api=api, operations=operations, style=style)
    headers = {"content-security-policy": page_policy(style)}
    return Reply.of(200, "text/html; charset=utf-8", body.encode(), headers)


def _operation(method: str, path: str, operation: dict[str, Any]) -> _Operation:
    return _Operation(
        method=method,
        path=path,
        anchor=re.sub(r"[^a-z0-9]+", "-", f"{method} {path}".lower()).strip("-"),
        summary=operation.get("summary", ""),
        description=operation.get("description", "") + (" Needs a token." if operation.get("security") else ""),
        parameters=[
            {"required": False, **parameter, "description": _meaning(parameter)}
            for parameter in operation.get("parameters", [])
        ],
        body=_example(operation.get("requestBody", {})),
        responses=[
            _Response(status, response.get("description", ""), _example(response))
            for status, response in operation.get("responses", {}).items()
        ],
    )


def _meaning(parameter: dict[str, Any]) -> str:
    described: str = parameter.get("description") or parameter.get("schema", {}).get("description", "")
    return described


def _example(message: dict[str, Any]) -> str:
    """The first example of a request body or response, as text."""
    for content in message.get("content", {}).values():
        example = content.get("example")
        if example is not None:
            return example if isinstance(example, str) else json.dumps(example, indent=2)
    return ""
