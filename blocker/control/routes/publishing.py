"""Publishing over HTTP: publish, approve, reject, roll back; and what waits, what was, and who did it."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from blocker.control.auth import APPROVER, MAINTAINER, OPERATOR, VIEWER, Principal
from blocker.control.events import answered_in_time
from blocker.control.office import Office, Once, answered, expected_serial
from blocker.control.problems import Problem
from blocker.control.routes.drafting import Name, desk_of, shown
from blocker.control.schema import (
    ApproveRequest,
    AuditAnswer,
    DraftAnswer,
    LogAnswer,
    OutcomeAnswer,
    ProposalsAnswer,
    PublishRequest,
    RejectRequest,
    RollbackAnswer,
    RollbackRequest,
    WhoAnswer,
)
from blocker.errors import NotThere, UpdateRefused
from blocker.ingest.publish import Progress, PublishResult
from blocker.ingest.rollback import checked_reason, rollback
from blocker.ingest.submit import Outcome
from blocker.store.manifest import Manifest

Limit = Annotated[int, Query(ge=1, le=1000, description="Most rows, newest first.")]
_STATUS = {"published": 200, "unchanged": 200, "waiting": 202, "refused": 409}
_EVENTS = 'event: progress\ndata: {"phase": "upload", "done": 1, "total": 5}\n\n'
_OUTCOMES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS}}},
    202: {"model": OutcomeAnswer, "description": "A second person must approve it"},
    409: {"model": OutcomeAnswer, "description": "A guard refuses it, or somebody else changed it meanwhile"},
}


def make_router(office: Office | None) -> APIRouter:
    """The routes of publishing."""
    router = APIRouter(tags=["lists"])

    @router.post(
        "/v1/lists/{name}/publish", summary="Publish the draft", response_model=OutcomeAnswer, responses=_OUTCOMES
    )
    async def publish(
        name: Name, request: Request, wish: PublishRequest, principal: Annotated[Principal, MAINTAINER]
    ) -> Response:
        """The guards look at it first: it is published, waits for a second person, or is refused.

        With `Accept: text/event-stream` it tells its progress meanwhile.
        """
        expected, desk = expected_serial(request), await desk_of(office)
        once = Once.of(desk.store, request, principal, await request.body())
        if (earlier := await once.earlier()) is not None:
            return earlier
        reason = written_reason(wish.reason)

        async def work(progress: Progress) -> Response:
            outcome = await desk.publish_draft(
                name, expected=expected, actor=principal.actor, reason=reason, mode=wish.mode, dry_run=wish.dry_run,
                now=time.time(), progress=progress,
                along=lambda outcome: once.keep(_STATUS[outcome.status], described(outcome)),
            )  # fmt: skip
            return answered(200 if outcome.dry_run else _STATUS[outcome.status], described(outcome))

        return await answered_in_time(request, work)

    @router.post(
        "/v1/lists/{name}/approve",
        summary="Approve a proposal",
        response_model=OutcomeAnswer,
        responses={200: _OUTCOMES[200]},
    )
    async def approve(
        name: Name, request: Request, wish: ApproveRequest, principal: Annotated[Principal, APPROVER]
    ) -> Response:
        """Publishes what somebody else proposed, or a source brought, exactly as it was shown."""
        expected, desk = expected_serial(request), await desk_of(office)
        once = Once.of(desk.store, request, principal, await request.body())
        if (earlier := await once.earlier()) is not None:
            return earlier
        waiting = await desk.store.draft("proposals", name)
        if waiting is not None and waiting.person == principal.person:
            raise Problem(403, "A second person must approve it; you proposed it.")
        reason = written_reason(wish.reason)

        async def work(progress: Progress) -> Response:
            outcome = await desk.approve(
                name, wish.proposal, expected=expected, actor=principal.actor, reason=reason, now=time.time(),
                progress=progress, along=lambda outcome: once.keep(200, described(outcome)),
            )  # fmt: skip
            return answered(200, described(outcome))

        return await answered_in_time(request, work)

    @router.post("/v1/lists/{name}/reject", summary="Reject a proposal", response_model=DraftAnswer)
    async def reject(
        name: Name, request: Request, wish: RejectRequest, principal: Annotated[Principal, APPROVER]
    ) -> Response:
        """It is kept as rejected, so that its source does not propose the same again."""
        desk = await desk_of(office)
        once = Once.of(desk.store, request, principal, await request.body())
        if (earlier := await once.earlier()) is not None:
            return earlier
        draft = await desk.reject(
            name, wish.proposal, actor=principal.actor, reason=written_reason(wish.reason), now=time.time(),
            along=lambda draft: once.keep(200, shown(draft)),
        )  # fmt: skip
        return answered(200, shown(draft))

    @router.post("/v1/lists/{name}/rollback", summary="Roll back", response_model=RollbackAnswer)
    async def roll_back(
        name: Name, request: Request, wish: RollbackRequest, principal: Annotated[Principal, MAINTAINER]
    ) -> Response:
        """Makes the list again what it was at an older serial, under a new one; byte for byte the same trie."""
        expected, desk = expected_serial(request), await desk_of(office)
        once = Once.of(desk.store, request, principal, await request.body())
        if (earlier := await once.earlier()) is not None:
            return earlier

        def body(done: PublishResult | Manifest, *, unchanged: bool) -> dict[str, Any]:
            fields = ("list", "serial", "entries", "added", "removed", "digest")
            return {**{field: getattr(done, field) for field in fields}, "unchanged": unchanged}

        done = await rollback(
            desk.store, desk.keyring, name, wish.serial, reason=wish.reason, now=time.time(), actor=principal.actor,
            expected=expected, along=lambda manifest: once.keep(200, body(manifest, unchanged=False)),
        )  # fmt: skip
        return answered(200, body(done, unchanged=done.unchanged))

    _reading(router, office)
    return router


def _reading(router: APIRouter, office: Office | None) -> None:
    @router.get("/v1/lists/{name}/log", summary="Serials of a list", response_model=LogAnswer)
    async def log(
        name: Name,
        _principal: Annotated[Principal, VIEWER],
        limit: Annotated[int, Query(ge=1, le=1000, description="Most serials.")] = 50,
    ) -> Response:
        """Newest first; `ETag` is the present serial."""
        manifests = await (await desk_of(office)).store.history(name, limit)
        if not manifests:
            raise NotThere(f"list {name} is not in the store")
        names = (
            "serial", "action", "mode", "path_case", "www_alias", "entries", "added", "removed", "digest", "created",
            "reason", "retired",
        )  # fmt: skip
        rows = [{field: getattr(manifest, field) for field in names} for manifest in manifests]
        return answered(200, {"list": name, "serials": rows}, etag=f'"{manifests[0].serial}"')

    @router.get("/v1/proposals", summary="What waits", response_model=ProposalsAnswer)
    async def proposals(_principal: Annotated[Principal, VIEWER]) -> Response:
        """Versions that wait for a second person, or were rejected, and what the guards said."""
        found = await (await desk_of(office)).store.drafts("proposals")
        return answered(200, {"proposals": [shown(draft) for draft in found.values()]})

    @router.get("/v1/audit", summary="Who did what", response_model=AuditAnswer)
    async def audit(
        _principal: Annotated[Principal, OPERATOR],
        limit: Annotated[int, Query(ge=1, le=1000, description="Most records.")] = 100,
    ) -> Response:
        """The newest records of the audit chain, newest first."""
        records = await (await desk_of(office)).store.newest_audit_records(limit)
        return answered(200, {"records": [{**record.fields, "hash": record.hash} for record in records]})

    @router.get("/v1/whoami", summary="Whose token it is", response_model=WhoAnswer)
    async def whoami(principal: Annotated[Principal, VIEWER]) -> Response:
        """Any valid token may ask."""
        return answered(
            200,
            {
                "name": principal.name,
                "person": principal.person,
                "roles": sorted(principal.roles),
                "lists": sorted(principal.lists),
            },
        )


def described(outcome: Outcome) -> dict[str, Any]:
    """An outcome as it is told."""
    findings = [{name: getattr(one, name) for name in one.__slots__} for one in outcome.findings]
    return {**{field: getattr(outcome, field) for field in outcome.__slots__}, "findings": findings}


def written_reason(text: str) -> str:
    """A reason as somebody wrote it.

    Raises:
        Problem: 422 if it may not stand in a log.
    """
    if not text:
        return ""
    try:
        return checked_reason(text)
    except UpdateRefused as error:
        raise Problem(422, str(error)) from None
