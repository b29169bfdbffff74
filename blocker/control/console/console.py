"""What each page of the console shows, and what its forms do; the routes are in `routes/console.py`."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from blocker.control.console.forms import text_of
from blocker.control.console.gate import PATIENCE_SECONDS
from blocker.control.console.heat import DAY_NAMES, heats, quiet_lists
from blocker.control.console.page import number, redirect
from blocker.control.console.state import (
    CANARY_FAILED,
    WAITING,
    Known,
    Mark,
    known_of,
    list_rows,
    node_rows,
    refusals,
)
from blocker.control.problems import Problem, problem_of
from blocker.control.routes.publishing import written_reason
from blocker.errors import BlockerError
from blocker.hits.fleet import added
from blocker.sections import NAME_PATTERN
from blocker.store.token import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fastapi import Request, Response

    from blocker.control.console.gate import Gate, Visit
    from blocker.control.console.page import Pages
    from blocker.control.console.state import ListRow, NodeRow
    from blocker.control.explaining import Explainer
    from blocker.control.office import Office
    from blocker.gateways.canaries import CanaryState
    from blocker.gateways.engine import Follower
    from blocker.hits.exporter import Exporter
    from blocker.hits.fleet import Fleet, Others
    from blocker.settings import Settings
    from blocker.store.audit import AuditRecord
    from blocker.store.draft import Draft
    from blocker.store.manifest import Manifest

# Rows of the page of changes: some weeks of a busy deployment.
CHANGES_SHOWN = 100
# Serials of each list among which the newest changes are looked for, for those who may not see the audit chain.
SERIALS_LOOKED_AT = 20

UNPROCESSABLE = 422
_TROUBLING = ("bad", "warn")

PLACES = (
    ("/", "Overview", Role.VIEWER),
    ("/console/proposals", "Approvals", Role.VIEWER),
    ("/console/changes", "Changes", Role.VIEWER),
    ("/console/hits", "Hits", Role.VIEWER),
    ("/console/explain", "Test", Role.OPERATOR),
)


class Trouble(NamedTuple):
    """A list or node that somebody should look at, where, and why."""

    what: str
    href: str
    marks: tuple[Mark, ...]


class Change(NamedTuple):
    """A row of the page of changes."""

    at: float
    list: str
    action: str
    serial: int
    entries: int | None
    added: int | None
    removed: int | None
    actor: str
    person: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """The pages.

    Attributes:
        gate: Who comes in.
        pages: Renders.
        office: The store and the desk.
        follower: What this node enforces.
        exporter: This node's released hits.
        fleet: Those of the others.
        explainer: Explains addresses.
        settings: Names of node and zone, and the bin of hits.
        stale_after: List → the age in seconds from which on it is stale.
        canaries: The last looks at canaries.
        clock: Unix seconds now.
    """

    gate: Gate
    pages: Pages
    office: Office
    follower: Follower
    exporter: Exporter
    fleet: Fleet
    explainer: Explainer
    settings: Settings
    stale_after: Callable[[], Mapping[str, float]]
    canaries: Callable[[], Iterable[CanaryState]]
    clock: Callable[[], float]

    async def overview(self, request: Request) -> Response:
        """Lists, nodes, and what needs attention."""
        visit = await self.gate.visit(request, Role.VIEWER)
        visit, known = await self._known(visit)
        lists = list_rows(self.follower, self.stale_after(), self.canaries(), known, self.clock())
        nodes = node_rows(known)
        return self._page(
            "overview", visit, "/", lists=lists, nodes=nodes, facts=self._facts(visit, lists),
            troubles=[*_list_troubles(lists), *_node_troubles(nodes)],
        )  # fmt: skip

    async def hits(self, request: Request) -> Response:
        """Released hits by hour and weekday."""
        visit = await self.gate.visit(request, Role.VIEWER)
        released = self.exporter.released()
        others: Others | None = None
        if released is not None and visit.store_up:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    others = await self.fleet.others(await self.office.open_store())
            except BlockerError:
                visit = visit._replace(store_up=False)
            except TimeoutError:
                pass  # it is being read; the page says so
        if released is not None and others is not None:
            released = added([released, others.released])
        return self._page(
            "hits", visit, "/console/hits", heats=None if released is None else heats(released), days=DAY_NAMES,
            quiet=quiet_lists(released or {}), others=None if others is None else others.nodes,
            zone=self.settings.timezone, bin=self.settings.hits.bin,
        )  # fmt: skip

    async def changes(self, request: Request) -> Response:
        """Who changed what; without the who for those who may not read the audit chain."""
        visit = await self.gate.visit(request, Role.VIEWER)
        who, rows = visit.principal.may(Role.OPERATOR), list[Change]()
        if visit.store_up:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    rows = await self._changes(who=who)
            except (BlockerError, TimeoutError):
                visit = visit._replace(store_up=False)
        return self._page("changes", visit, "/console/changes", who=who, rows=rows)

    async def _changes(self, *, who: bool) -> list[Change]:
        store = await self.office.open_store()
        if who:
            return [_of_record(record) for record in await store.newest_audit_records(CHANGES_SHOWN)]
        manifests = [one for name in await store.heads() for one in await store.history(name, SERIALS_LOOKED_AT)]
        return sorted(map(_of_manifest, manifests), key=lambda row: row.at, reverse=True)[:CHANGES_SHOWN]

    async def proposals(self, request: Request) -> Response:
        """What waits for a second person, and what was refused."""
        visit = await self.gate.visit(request, Role.VIEWER)
        visit, known = await self._known(visit)
        waiting = [
            {
                "draft": draft,
                "own": bool(draft.person) and draft.person == visit.principal.person,
                "head": head,
                "moved": head != draft.base,
            }
            for draft in _in_state(known, "waiting")
            for head in (known.heads[draft.list].serial if draft.list in known.heads else 0,)
        ]
        return self._page(
            "proposals", visit, "/console/proposals", waiting=waiting, rejected=_in_state(known, "rejected"),
            refused=refusals(known), may_approve=visit.principal.may(Role.APPROVER),
        )  # fmt: skip

    async def approve(self, request: Request) -> Response:
        """Publish what somebody else proposed, as it was shown."""
        name = _name(request)
        visit, fields = await self.gate.form(request, Role.APPROVER, "proposal", "serial", "read", name=name)
        if fields.get("read") != b"yes":
            raise Problem(422, "Read what the guards say, and say that you have.")
        serial = text_of(fields, "serial")
        if not re.fullmatch(r"[0-9]{1,16}", serial):
            raise Problem(422, "serial: must be a number")
        desk = await self.office.desk()
        outcome = await desk.approve(
            name, text_of(fields, "proposal"), expected=int(serial), actor=visit.principal.actor, now=self.clock()
        )
        rules = "1 rule" if outcome.entries == 1 else f"{number(outcome.entries)} rules"
        visit.session.notice = f"{name} is at serial {outcome.serial} with {rules}."
        return redirect("/console/proposals")

    async def reject(self, request: Request) -> Response:
        """Refuse what was proposed."""
        name = _name(request)
        visit, fields = await self.gate.form(request, Role.APPROVER, "proposal", "reason", name=name)
        reason = written_reason(text_of(fields, "reason"))
        desk = await self.office.desk()
        await desk.reject(
            name, text_of(fields, "proposal"), actor=visit.principal.actor, reason=reason, now=self.clock()
        )
        visit.session.notice = f"The proposal for {name} is rejected; the list stays as it is."
        return redirect("/console/proposals")

    async def ask(self, request: Request) -> Response:
        """Where an address is asked for."""
        return self._asked(await self.gate.visit(request, Role.OPERATOR))

    async def explain(self, request: Request) -> Response:
        """Why an address is decided as it is; told to who asked, and nowhere else."""
        visit, fields = await self.gate.form(request, Role.OPERATOR, "url", "policy")
        asked = text_of(fields, "url")
        policy = text_of(fields, "policy") or self.explainer.policies()[0]
        try:
            found = await self.explainer.explain(asked, policy)
        except BlockerError as error:
            problem = problem_of(error)
            if problem.status != UNPROCESSABLE:
                raise
            return self._asked(visit, asked, policy, fault=problem.detail.removeprefix("url: "), status=problem.status)
        return self._asked(visit, asked, policy, found=found)

    def _asked(
        self, visit: Visit, asked: str = "", policy: str = "", *, found: object = None, fault: str = "",
        status: int = 200,
    ) -> Response:  # fmt: skip
        return self._page(
            "explain", visit, "/console/explain", status=status, asked=asked, policy=policy, found=found, fault=fault,
            policies=self.explainer.policies(),
        )  # fmt: skip

    def _page(self, template: str, visit: Visit, here: str, *, status: int = 200, **values: Any) -> Response:  # noqa: ANN401 - what templates show
        places = [(path, text) for path, text, role in PLACES if visit.principal.may(role)]
        return self.pages.page(
            template, status, node=self.settings.node, visit=visit, here=here, places=places,
            notice=visit.session.take_notice(), **values,
        )  # fmt: skip

    async def _known(self, visit: Visit) -> tuple[Visit, Known]:
        """What the store says, and the visit with whether it does."""
        try:
            store = await self.office.open_store() if visit.store_up else None
        except BlockerError:
            store = None
        matcher = self.follower.matcher
        names = {name for name, *_ in matcher.table.lists} if matcher else set()
        known = Known()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                known = await known_of(store, names | self.stale_after().keys())
        return visit._replace(store_up=known.up), known

    def _facts(self, visit: Visit, lists: Iterable[ListRow]) -> dict[str, object]:
        status, enforced = self.follower.status, [row for row in lists if row.serial]
        if self.follower.matcher is None:
            node = Mark("bad", "decides nothing yet", status.detail)
        elif status.lag_seconds or status.detail:
            node = Mark("warn", "behind", status.detail)
        else:
            node = Mark("good", "in step")
        return {
            "store": Mark("good", "up") if visit.store_up else Mark("bad", "away"),
            "node": node,
            "lists": len(enforced),
            "rules": sum(row.entries for row in enforced),
            "version": version("blocker"),
        }


def _list_troubles(lists: Iterable[ListRow]) -> list[Trouble]:
    troubles = []
    for row in lists:
        marks = tuple(_told(mark, row) for mark in row.marks if mark.level in _TROUBLING)
        if marks:
            waits = any(mark.word == WAITING for mark in marks)
            troubles.append(
                Trouble(row.name, f"/console/proposals#proposal-{row.name}" if waits else f"#list-{row.name}", marks)
            )
    return troubles


def _told(mark: Mark, row: ListRow) -> Mark:
    """With the gateways, of a canary that failed."""
    failed = [f"{gateway}: {one.word}" for gateway, one in row.canaries if one.level == "bad"]
    return mark._replace(reason=", ".join(failed)) if mark.word == CANARY_FAILED else mark


def _node_troubles(nodes: Iterable[NodeRow]) -> list[Trouble]:
    return [
        Trouble(row.beat.node, f"#node-{row.beat.node}", (row.mark,)) for row in nodes if row.mark.level in _TROUBLING
    ]


def _in_state(known: Known, state: str) -> list[Draft]:
    return [draft for draft in known.proposals.values() if draft.state == state]


def _of_record(record: AuditRecord) -> Change:
    fields, facts = record.fields, record.fields.get("facts", {})
    token = f"token {facts['token']}" if "token" in facts else ""
    return Change(
        at=float(fields["at"]), list=fields["list"], action=fields["action"], serial=fields["serial"],
        entries=facts.get("entries"), added=facts.get("added"), removed=facts.get("removed"), actor=fields["actor"],
        person=fields["person"], reason=fields["reason"] or facts.get("guards", "") or token,
    )  # fmt: skip


def _of_manifest(manifest: Manifest) -> Change:
    return Change(
        at=manifest.created, list=manifest.list, action="retired" if manifest.retired else "published",
        serial=manifest.serial, entries=manifest.entries, added=manifest.added, removed=manifest.removed, actor="",
        person="", reason=manifest.reason,
    )  # fmt: skip


def _name(request: Request) -> str:
    name = str(request.path_params["name"])
    if not re.fullmatch(NAME_PATTERN, name):
        raise Problem(404, "There is no such list.")
    return name
