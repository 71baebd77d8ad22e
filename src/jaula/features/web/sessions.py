"""Sessions of browsers, and the limits of logins.

A session has an identifier, which the page keeps in its ``sessionStorage`` and sends in the header
``Authorization``. No cookie carries it: a cookie is sent to every port of the host name (RFC 6265,
section 8.5), so to any listener of another user, while storage is bound to scheme, host and port.
A page of another origin cannot send the header, so there is no token against forged requests. Only
the SHA-256 of an identifier is kept.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaula.errors import Conflict, NotAuthorized
from jaula.features.web.session_file import StoredSession

if TYPE_CHECKING:
    from jaula.features.web.session_file import SessionFile
    from jaula.spec.api_params import WebUser

LIFETIME = 12 * 3600.0  # seconds, however much a session is used
IDLE = 3600.0  # seconds without a request or an open stream
MAX_SESSIONS = 256
MAX_SESSIONS_OF_USER = 16
LOGINS = 10  # failed ones of one address in a window
ALL_LOGINS = 100  # failed ones of all addresses in a window
LOGIN_WINDOW = 60.0  # seconds
_MAX_ADDRESSES = 4096


def boot_time() -> float:
    """Return the seconds since the boot, those of a suspended machine included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Session:
    """One logged-in browser. ``streams`` is the number of its open streams."""

    def __init__(self, user: WebUser, method: str, now: float) -> None:
        self.user = user
        self.method = method
        self.created = now
        self.used = now
        self.streams = 0
        self.ended = False
        self.closers: set[Callable[[], object]] = set()


class Sessions:
    """All sessions of a web view. Without a ``file`` they are lost when it ends.

    Begin and end of a session are stored at once, the time of its last use by :meth:`store`.
    """

    def __init__(
        self,
        clock: Callable[[], float] = boot_time,
        *,
        lifetime: float = LIFETIME,
        idle: float = IDLE,
        file: SessionFile | None = None,
    ) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._idle = idle
        self._file = file
        self._sessions: dict[bytes, Session] = {}
        if file is not None:
            self._load(file)

    def __len__(self) -> int:
        return len(self._sessions)

    def create(self, user: WebUser, method: str) -> tuple[str, Session]:
        """Return the identifier and the session of a user who has proved who they are.

        The oldest session of a user with too many ends.

        :raises Conflict: when there are too many sessions of other users.
        """
        self.expire()
        own = [key for key, other in self._sessions.items() if _same(other.user, user)]
        if len(own) >= MAX_SESSIONS_OF_USER:
            self._end(min(own, key=lambda key: self._sessions[key].used))
        elif len(self._sessions) >= MAX_SESSIONS:
            raise Conflict("too many sessions are open", hint="try again later")
        identifier = secrets.token_urlsafe(32)
        session = Session(user, method, self._clock())
        self._sessions[_digest(identifier)] = session
        self.store()
        return identifier, session

    def find(self, identifier: str) -> Session | None:
        """Return the session of an identifier, None if there is none. It counts as used."""
        self.expire()
        session = self._sessions.get(_digest(identifier))
        if session is not None:
            session.used = self._clock()
        return session

    def end(self, identifier: str) -> None:
        """End a session and its streams."""
        key = _digest(identifier)
        if key in self._sessions:
            self._end(key)
            self.store()

    def store(self) -> None:
        """Write the sessions to the file, if there is one."""
        if self._file is None:
            return
        self._file.save(
            [
                StoredSession(
                    digest=key.hex(),
                    user=session.user,
                    method=session.method,
                    created=session.created,
                    used=self._clock() if session.streams else session.used,
                )
                for key, session in self._sessions.items()
            ]
        )

    def _load(self, file: SessionFile) -> None:
        now = self._clock()
        for stored in file.load()[:MAX_SESSIONS]:
            if max(stored.created, stored.used) > now:
                continue  # of another clock
            session = Session(stored.user, stored.method, stored.created)
            session.used = stored.used
            self._sessions[bytes.fromhex(stored.digest)] = session
        self.expire()

    def expire(self) -> None:
        """End the sessions that are too old, or that were not used for too long."""
        now, before = self._clock(), len(self._sessions)
        for key, session in tuple(self._sessions.items()):
            idle = not session.streams and now - session.used >= self._idle
            if idle or now - session.created >= self._lifetime:
                self._end(key)
        if len(self._sessions) != before:
            self.store()

    def _end(self, key: bytes) -> None:
        session = self._sessions.pop(key)
        session.ended = True
        for close in tuple(session.closers):
            close()


class LoginLimiter:
    """Refuses logins of an address, or of all, after too many failed ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, deque[float]] = {}
        self._all: deque[float] = deque()

    def check(self, address: str) -> None:
        """Check that an address may try.

        :raises NotAuthorized: when it has failed too often.
        """
        self._forget()
        if len(self._failures.get(address, ())) >= LOGINS or len(self._all) >= ALL_LOGINS:
            raise NotAuthorized(
                "too many logins have failed", hint=f"wait {LOGIN_WINDOW:.0f} seconds"
            )

    def fail(self, address: str) -> None:
        """Count a failed login."""
        now = self._clock()
        if len(self._failures) < _MAX_ADDRESSES:
            self._failures.setdefault(address, deque()).append(now)
        self._all.append(now)

    def _forget(self) -> None:
        start = self._clock() - LOGIN_WINDOW
        for times in (*self._failures.values(), self._all):
            while times and times[0] <= start:
                times.popleft()
        self._failures = {key: times for key, times in self._failures.items() if times}


def _same(one: WebUser, other: WebUser) -> bool:
    return (one.uid, one.fingerprint) == (other.uid, other.fingerprint)


def _digest(identifier: str) -> bytes:
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).digest()
