"""The console's door: signing in with a token, who comes with which session, and what their forms must carry.

Each request looks in the store whether the token is still good, so a revoked one ends its sessions at the next click.
While the store is away nobody can sign in and nothing can be changed; who is signed in already goes on to see what this
node knows by itself, until the session or the token ends by the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from blocker.control.console.forms import came_by_https, fields_of, refuse_foreign, text_of
from blocker.control.console.page import redirect
from blocker.control.problems import Problem

if TYPE_CHECKING:
    from fastapi import Request, Response

    from blocker.control.auth import Authenticator, Principal
    from blocker.control.console.page import Pages
    from blocker.control.console.sessions import Session, Sessions
    from blocker.store.token import Role

LOGIN = "/console/login"
# Browsers take a name with this prefix from https alone, for this host alone (RFC 6265bis, section 4.1.3.2).
SECURE_COOKIE = "__Host-blocker"
PLAIN_COOKIE = "blocker"

UNAUTHORIZED = 401
_NOT_GOOD = "This token is not good: mistyped, expired or revoked."


class SignedOut(Exception):  # noqa: N818 - a state that leads to another page
    """Nobody is signed in."""


class Visit(NamedTuple):
    """One request of somebody who is signed in.

    Attributes:
        session: Their session.
        principal: Who they are.
        store_up: Whether the store could be asked.
    """

    session: Session
    principal: Principal
    store_up: bool


class Gate:
    """Lets people in.

    Args:
        authenticator: Knows tokens; limits wrong ones together with the API's.
        sessions: Who is signed in.
        pages: Renders the page to sign in.
        https_only: Whether people sign in over https alone.
    """

    def __init__(self, authenticator: Authenticator, sessions: Sessions, pages: Pages, *, https_only: bool) -> None:
        self._authenticator = authenticator
        self._sessions = sessions
        self._pages = pages
        self._https_only = https_only

    async def visit(self, request: Request, role: Role, name: str | None = None, *, live: bool = False) -> Visit:
        """Who asks.

        Args:
            request: What they ask.
            role: What they must be.
            name: The list that it is about.
            live: Whether the token must be looked at now; else what it said last is enough while the store is away.

        Raises:
            SignedOut: Nobody who is signed in.
            Problem: 403 without the role; 503 if the store is away and the token must be looked at.
        """
        session = self._session(request)
        if session is None:
            raise SignedOut
        store_up = True
        try:
            found = await self._authenticator.again(session.credential)
        except Problem:
            if live:
                raise
            store_up = False
        else:
            if found is None:
                self._sessions.end(session)
                raise SignedOut
            session.principal, session.credential = found
        if not session.principal.may(role, name):
            raise Problem(403, f"This needs the role {role.value}, for this list where it is about one.")
        return Visit(session, session.principal, store_up)

    async def form(
        self, request: Request, role: Role, *fields: str, name: str | None = None
    ) -> tuple[Visit, dict[str, bytes]]:
        """Who sends a form, and its fields.

        Raises:
            SignedOut, Problem: As `visit`; 403 for a form from elsewhere or of another session.
        """
        refuse_foreign(request)
        visit = await self.visit(request, role, name, live=True)
        found = await fields_of(request, "form_key", *fields)
        self._refuse_other(visit.session, found)
        return visit, found

    async def sign_in(self, request: Request) -> Response:
        """Begin a session for the owner of a token; a session that the browser had ends.

        Raises:
            Problem: 403 for a form from elsewhere, or over http where that is not allowed.
        """
        refuse_foreign(request)
        secure = came_by_https(request)
        if self._https_only and not secure:
            raise Problem(403, "Sign in over https: this console is set to.")
        token = text_of(await fields_of(request, "token"), "token")
        try:
            principal, credential = await self._authenticator.admit(token)
        except Problem as problem:
            fault = _NOT_GOOD if problem.status == UNAUTHORIZED else problem.detail
            return self.sign_in_page(problem.status, fault)
        before = self._session(request)
        if before is not None:
            self._sessions.end(before)
        name, _ = self._sessions.begin(principal, credential)
        answer = redirect("/")
        cookie = SECURE_COOKIE if secure else PLAIN_COOKIE
        answer.set_cookie(cookie, name, path="/", secure=secure, httponly=True, samesite="strict")
        return answer

    async def sign_out(self, request: Request) -> Response:
        """End the session; also while the store is away.

        Raises:
            Problem: 403 for a form from elsewhere or of another session.
        """
        refuse_foreign(request)
        session = self._session(request)
        if session is not None:
            self._refuse_other(session, await fields_of(request, "form_key"))
            self._sessions.end(session)
        answer = redirect(LOGIN)
        for cookie in (SECURE_COOKIE, PLAIN_COOKIE):
            if cookie in request.cookies:
                answer.delete_cookie(cookie, path="/", secure=cookie == SECURE_COOKIE, httponly=True, samesite="strict")
        return answer

    def sign_in_page(self, status: int = 200, fault: str = "") -> Response:
        """The page to sign in; tells nothing of lists or nodes."""
        return self._pages.page("login", status, node="", visit=None, notice="", fault=fault)

    def _session(self, request: Request) -> Session | None:
        names = (SECURE_COOKIE,) if self._https_only else (SECURE_COOKIE, PLAIN_COOKIE)
        found = (self._sessions.find(request.cookies.get(name)) for name in names)
        return next((session for session in found if session is not None), None)

    @staticmethod
    def _refuse_other(session: Session, fields: dict[str, bytes]) -> None:
        if not session.owns(fields.get("form_key", b"").decode("latin-1")):
            raise Problem(403, "This form is of another session; open the page again and repeat it there.")
