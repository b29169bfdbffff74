"""`/v1/lists/{name}/draft`: the next version of a list, pushed whole or as a change, seen by nobody until published."""

import asyncio
import hashlib
import json
import time
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blocker._native import RuleSet
from blocker.control.auth import MAINTAINER, Principal
from blocker.control.office import Office, Once, answered, expected_serial
from blocker.control.problems import Problem, invalid_request
from blocker.control.schema import ChangeRequest, DraftAnswer, Entry
from blocker.errors import NotThere
from blocker.ingest.drafts import discard_draft, patch_draft, put_draft
from blocker.ingest.formats import FormatOptions, find_format
from blocker.ingest.formats._unpack import Compression
from blocker.ingest.plan import PublishOptions
from blocker.ingest.publish import head_manifest
from blocker.ingest.reading import HowToRead, ListReader
from blocker.sections import NAME_PATTERN
from blocker.store.draft import Draft

# Pushes that are read at once on one node: each holds the rules of a whole list.
AT_ONCE = 2
# Entries of a change that are told to be bad; all are counted.
SHOWN_ENTRIES = 20

# Entries are an address, or one with its metadata; written out, since a document has no place for definitions here.
_CHANGE_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "add": {"type": "array", "items": {"anyOf": [{"type": "string"}, Entry.model_json_schema()]}},
        "remove": {"type": "array", "items": {"anyOf": [{"type": "string"}, Entry.model_json_schema()]}},
        "reason": {"type": "string", "maxLength": 200},
    },
}
_CHANGE_EXAMPLE = {"add": ["http://listed.example/new/"], "remove": ["http://listed.example/old/"]}

Name = Annotated[str, Path(pattern=NAME_PATTERN, description="The list.")]


class PushQuery(BaseModel):
    """How the pushed file is written, and how the list will act; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    format: str = Field(description="As in a source: url, domain, hosts, csv, jsonl, rpz, …")
    action: Literal["block", "allow"] | None = Field(None, description="What the list does.")
    mode: Literal["enforce", "shadow"] | None = Field(None, description="Whether it is enforced or only counted.")
    path_case: Literal["sensitive", "insensitive"] | None = Field(None, description="Whether case matters in paths.")
    www_alias: bool | None = Field(None, description="Whether www.h and h are one host.")
    bare: Literal["host", "domain"] | None = Field(None, description="As in a source.")
    trailing_slash: Literal["prefix", "exact"] | None = Field(None, description="As in a source.")
    domain_kind: Literal["domain", "host"] | None = Field(None, description="As in a source.")
    compression: Compression = Field("auto", description="Packing of the file.")
    max_bad_share: float = Field(0.01, ge=0, le=1, description="Share of bad entries that is accepted.")
    reason: str = Field("", max_length=200, description="Why. No address and no host name.")


def make_router(office: Office | None, max_push_bytes: int) -> APIRouter:
    """The routes of drafts."""
    router = APIRouter(tags=["lists"])
    reading = asyncio.Semaphore(AT_ONCE)

    @router.put(
        "/v1/lists/{name}/draft",
        summary="Push a whole list",
        response_model=DraftAnswer,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"example": "http://listed.example/gallery/\n"}},
            }
        },
    )
    async def put(
        name: Name, request: Request, query: Annotated[PushQuery, Query()], principal: Annotated[Principal, MAINTAINER]
    ) -> Response:
        """The body is the list's file, of any size; it is read as it arrives. Needs If-Match or If-None-Match."""
        base, desk = expected_serial(request), await desk_of(office)
        if reading.locked():
            raise Problem(503, "Other lists are being pushed.", headers={"retry-after": "5"})
        async with reading:
            how = HowToRead(
                format=query.format,
                options=FormatOptions(
                    bare=query.bare, trailing_slash=query.trailing_slash, domain_kind=query.domain_kind
                ),
                compression=query.compression,
                max_bytes=max_push_bytes,
                max_bad_share=query.max_bad_share,
            )
            reader, seen = ListReader(how), hashlib.sha256()
            async for chunk in request.stream():
                if chunk:
                    seen.update(chunk)
                    await asyncio.to_thread(reader.feed, chunk)
            once = Once.of(desk.store, request, principal, seen.digest())
            if (earlier := await once.earlier()) is not None:
                return earlier
            read = await asyncio.to_thread(reader.finish)
            head = await head_manifest(desk.store, name)
            options = PublishOptions() if head is None else PublishOptions.of(head)
            given = {field: getattr(query, field) for field in PublishOptions.__slots__}
            options = replace(options, **{field: value for field, value in given.items() if value is not None})

            def body(draft: Draft) -> dict[str, Any]:
                return {**shown(draft), "lines": read.lines, "bad": read.bad, "errors": [list(e) for e in read.errors]}

            draft = await put_draft(
                desk.store, desk.keyring, name, options, read.rules, base=base, actor=principal.actor,
                reason=query.reason, now=time.time(), along=lambda draft: once.keep(200, body(draft)),
            )  # fmt: skip
        return answered(200, body(draft))

    @router.patch(
        "/v1/lists/{name}/draft",
        summary="Push a change",
        response_model=DraftAnswer,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _CHANGE_SCHEMA, "example": _CHANGE_EXAMPLE}},
            }
        },
    )
    async def patch(name: Name, request: Request, principal: Annotated[Principal, MAINTAINER]) -> Response:
        """Adds and removes rules, of the draft if there is one, else of the list as it is."""
        base, desk = expected_serial(request), await desk_of(office)
        body = await request.body()
        once = Once.of(desk.store, request, principal, body)
        if (earlier := await once.earlier()) is not None:
            return earlier
        change = _change(body)
        added = await asyncio.to_thread(_rules, change.add, "add")
        removed = await asyncio.to_thread(_rules, change.remove, "remove")
        draft = await patch_draft(
            desk.store, desk.keyring, name, added, removed, base=base, actor=principal.actor, reason=change.reason,
            now=time.time(), along=lambda draft: once.keep(200, shown(draft)),
        )  # fmt: skip
        return answered(200, shown(draft))

    @router.get("/v1/lists/{name}/draft", summary="The draft", response_model=DraftAnswer)
    async def get(name: Name, _principal: Annotated[Principal, MAINTAINER]) -> Response:
        """Counts and options; never a rule."""
        draft = await (await desk_of(office)).store.draft("drafts", name)
        if draft is None:
            raise NotThere(f"list {name} has no draft")
        return answered(200, shown(draft))

    @router.delete("/v1/lists/{name}/draft", summary="Discard the draft", response_model=DraftAnswer)
    async def delete(name: Name, principal: Annotated[Principal, MAINTAINER]) -> Response:
        """Answers with what it was."""
        desk = await desk_of(office)
        return answered(200, shown(await discard_draft(desk.store, name, actor=principal.actor, now=time.time())))

    return router


async def desk_of(office: Office | None) -> Any:  # noqa: ANN401 - a Desk; FastAPI reads annotations at run time
    """The desk of a node that has one.

    Raises:
        Problem: 503.
    """
    if office is None:
        raise Problem(503, "This node has no store.")
    return await office.desk()


def shown(draft: Draft) -> dict[str, Any]:
    """A draft or proposal as it is told."""
    fields = {field: getattr(draft, field) for field in draft.__slots__ if field not in ("layers", "epoch")}
    findings = [{name: getattr(one, name) for name in one.__slots__} for one in draft.findings]
    return {**fields, "findings": findings}


def _change(body: bytes) -> ChangeRequest:
    try:
        return ChangeRequest.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:SHOWN_ENTRIES]
        known = ("add", "remove", "reason")
        where = [
            ".".join(str(p) for p in fault["loc"] if isinstance(p, int) or p in known) or "body" for fault in faults
        ]
        raise invalid_request(*((place, "is malformed") for place in where)) from None


def _rules(entries: list[str | Entry], side: str) -> RuleSet:
    """The rules of entries; a bad one is told by its number."""
    parser = find_format("jsonl").parser(FormatOptions())
    for entry in entries:
        fields = {"url": entry} if isinstance(entry, str) else entry.model_dump(exclude_none=True)
        parser.feed(json.dumps(fields).encode() + b"\n")
    rules = parser.finish()
    if parser.bad:
        faults = [(f"{side}.{number - 1}", reason) for number, reason in parser.errors[:SHOWN_ENTRIES]]
        raise invalid_request(*faults)
    return rules
