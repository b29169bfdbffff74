"""Who is signed in to the console of this node: kept in memory alone, so that a restart signs everybody out.

A session is a random name in a cookie that no script can read and no other site can send. The name is drawn anew at
each sign-in, so that nobody can be given one that somebody else knows, and only its digest is kept. It holds what is
needed to look at each request whether the token is still good, never the token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocker.control.auth import Credential, Principal

# However busy its owner is: a working day.
LONGEST_SECONDS = 8 * 3600.0
# Sessions at once, of all owners and of one token; one more ends the one that was quiet for longest.
MOST_SESSIONS = 1000
MOST_OF_A_TOKEN = 16
# Random bytes of a session's name and of what its forms carry.
SECRET_BYTES = 32


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """One person in one browser.

    Attributes:
        key: Digest of its name.
        principal: Who, as the token said when it was looked at last.
        credential: To look at it again.
        began: Unix seconds.
        seen: When it was used last, unix seconds.
        form_key: What each of its forms carries.
        notice: What the next page says, once.
    """

    key: str = field(repr=False)
    principal: Principal
    credential: Credential
    began: float
    seen: float
    form_key: str = field(repr=False)
    notice: str = ""

    def owns(self, form_key: str) -> bool:
        """Whether a form is of this session."""
        return hmac.compare_digest(self.form_key.encode(), form_key.encode("utf-8", "surrogatepass"))

    def take_notice(self) -> str:
        """What the page says; nothing the next time."""
        notice, self.notice = self.notice, ""
        return notice


class Sessions:
    """The sessions of one node.

    Args:
        idle_seconds: A session that is not used for so long has ended.
        clock: Unix seconds now.
    """

    def __init__(self, idle_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self.idle_seconds = idle_seconds
        self._clock = clock
        self._sessions: dict[str, Session] = {}  # the one that was quiet for longest comes first

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, principal: Principal, credential: Credential) -> tuple[str, Session]:
        """A new session and its name, which is nowhere else."""
        now = self._clock()
        self._forget(now)
        own = [session for session in self._sessions.values() if session.credential.id == credential.id]
        if len(own) >= MOST_OF_A_TOKEN:
            self.end(own[0])
        if len(self._sessions) >= MOST_SESSIONS:
            self.end(next(iter(self._sessions.values())))
        name = secrets.token_urlsafe(SECRET_BYTES)
        session = Session(
            key=_digest(name), principal=principal, credential=credential, began=now, seen=now,
            form_key=secrets.token_urlsafe(SECRET_BYTES),
        )  # fmt: skip
        self._sessions[session.key] = session
        return name, session

    def find(self, name: str | None) -> Session | None:
        """The session of a name, which counts as used now; None if there is none or it has ended."""
        session = self._sessions.get(_digest(name)) if name else None
        if session is None:
            return None
        now = self._clock()
        if self._ended(session, now):
            self.end(session)
            return None
        session.seen = now
        self._sessions[session.key] = self._sessions.pop(session.key)
        return session

    def end(self, session: Session) -> None:
        """Its name is good for nothing any more."""
        self._sessions.pop(session.key, None)

    def _ended(self, session: Session, now: float) -> bool:
        return (
            now >= session.seen + self.idle_seconds
            or now >= session.began + LONGEST_SECONDS
            or now >= session.credential.until
        )

    def _forget(self, now: float) -> None:
        for session in [session for session in self._sessions.values() if self._ended(session, now)]:
            self.end(session)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
