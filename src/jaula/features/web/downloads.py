"""One-time addresses of downloads.

A link cannot send a header, and an address reaches the history of a browser and logs. So a page
asks for an address with its session, and the address works once and for :data:`SECONDS`. It ends
with its session, and leads to the one path that the page asked for. Only the SHA-256 of its token
is kept.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

from jaula.errors import NotAuthorized

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.features.web.sessions import Session

SECONDS = 30.0  # from the request of a page to the request of its browser
MAX_OF_SESSION = 16  # that were not used; the oldest one ends


class _Download(NamedTuple):
    session: Session
    path: str
    until: float


class Downloads:
    """The addresses that were not used yet."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._downloads: dict[bytes, _Download] = {}

    def __len__(self) -> int:
        return len(self._downloads)

    def create(self, session: Session, path: str) -> str:
        """Return the token of a download of a path of the view."""
        self._forget()
        own = [key for key, other in self._downloads.items() if other.session is session]
        if len(own) >= MAX_OF_SESSION:
            del self._downloads[own[0]]
        token = secrets.token_urlsafe(32)
        self._downloads[_digest(token)] = _Download(session, path, self._clock() + SECONDS)
        return token

    def take(self, token: str) -> tuple[Session, str]:
        """Return session and path of a download, whose token is not valid any more.

        :raises NotAuthorized: when the token was used, is too old, or its session has ended.
        """
        self._forget()
        found = self._downloads.pop(_digest(token), None)
        if found is None:
            raise NotAuthorized(
                "the address of the download is not valid: it was used, or is too old",
                hint="start the download again from the page",
            )
        return found.session, found.path

    def _forget(self) -> None:
        now = self._clock()
        self._downloads = {
            key: each
            for key, each in self._downloads.items()
            if each.until > now and not each.session.ended
        }


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
