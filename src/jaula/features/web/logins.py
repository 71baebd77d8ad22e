"""Logins to the web view: its address, one-time links, and the users that it speaks for.

A link has a code that is valid once and for :data:`LINK_SECONDS`. The engine knows who asked for it
from the kernel (``SO_PEERCRED``), and tells the web view when the code is presented. Codes are kept
as SHA-256, so that the memory of an engine does not log a reader in.

A web view names its user in the header ``Jaula-Web-User`` of each request. Only a caller that may
do everything as root may speak for another user, so the header gives no right to its sender.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.authz.authorization_policy import caller_of
from jaula.errors import Conflict, InvalidRequest, NotAuthorized, NotFound
from jaula.spec.api_params import Peer, Remote, WebUser

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.engine.authz.caller_session import Session
    from jaula.engine.engine import Engine
    from jaula.spec.api_params import Origin

LINK_SECONDS = 60.0
MAX_LINKS = 256  # of all callers
MAX_LINKS_OF_CALLER = 16
_MAX_GROUPS = 65536  # NGROUPS_MAX
_MAX_ID = 2**32 - 2
_VIA = "web"


class WebLogins:
    """The web view of an engine and its valid links. Both are lost when the engine ends."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._links: dict[bytes, tuple[float, WebUser]] = {}
        self.url = ""  # of the web view; empty: none has registered

    def create(self, user: WebUser) -> str:
        """Return the code of a new link.

        :raises NotFound: when no web view has registered.
        :raises Conflict: when the user has too many links that were not used.
        """
        if not self.url:
            raise NotFound(
                "no web view serves this engine",
                hint="start one with jaula web, or jaula daemon --web 127.0.0.1:8320",
            )
        self._forget()
        mine = sum(_key(other) == _key(user) for _, other in self._links.values())
        if mine >= MAX_LINKS_OF_CALLER or len(self._links) >= MAX_LINKS:
            raise Conflict(
                "too many links to the web view have not been used",
                hint=f"wait {LINK_SECONDS:.0f} seconds",
            )
        code = secrets.token_urlsafe(24)
        self._links[_digest(code)] = (self._clock() + LINK_SECONDS, user)
        return code

    def redeem(self, code: str) -> WebUser:
        """Return the user who asked for a link, which is not valid any more.

        :raises NotAuthorized: when the code is not valid.
        """
        self._forget()
        found = self._links.pop(_digest(code), None)
        if found is None:
            raise NotAuthorized(
                "the link is not valid: it was used, or is too old",
                hint="jaula web --open makes a new one",
            )
        return found[1]

    def _forget(self) -> None:
        now = self._clock()
        self._links = {key: link for key, link in self._links.items() if link[0] > now}


def user_of(peer: Origin | None) -> WebUser:
    """Return the user of the web view for the caller who asks for a link.

    :raises NotAuthorized: when the caller is neither a user of this host nor a certificate.
    """
    if isinstance(peer, Peer):
        login = peer.login_uid
        return WebUser(uid=peer.uid, gid=peer.gid, groups=peer.groups, login_uid=login)
    if isinstance(peer, Remote) and peer.fingerprint:
        return WebUser(certificate=peer.name or peer.fingerprint, fingerprint=peer.fingerprint)
    raise NotAuthorized("only users of this host and clients with a certificate may log in")


def web_logins(engine: Engine) -> WebLogins:
    """Return the web view that serves an engine, and the links to it that are valid."""
    return WebLogins()


def origin_of(session: Session, text: str) -> Origin:
    """Return the origin of a request that the web view sends for a user, from its header.

    :raises InvalidRequest: when the header is not valid.
    :raises NotAuthorized: when the sender may not speak for that user.
    """
    try:
        user = msgspec.json.decode(text, type=WebUser)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the header Jaula-Web-User is not valid: {error}") from None
    ids = (user.uid or 0, user.gid, *user.groups, user.login_uid or 0)
    if len(user.groups) > _MAX_GROUPS or not all(0 <= number <= _MAX_ID for number in ids):
        raise InvalidRequest("the header Jaula-Web-User has an id that is not valid")
    if (user.uid is None) != bool(user.fingerprint):
        raise InvalidRequest("the header Jaula-Web-User must have a uid or a certificate")
    if user.uid is None:
        address, name = user.address, user.certificate
        origin: Peer | Remote = Remote(address, name, user.fingerprint, via=_VIA)
    else:
        sender = session.peer
        origin = Peer(
            session.caller.pid,
            user.uid,
            user.gid,
            user.groups,
            user.login_uid,
            sender.command if isinstance(sender, Peer) else "",
            via=_VIA,
            address=user.address,
        )
    if not session.is_admin:
        if caller_of(origin).key != session.caller.key or isinstance(origin, Remote):
            raise session.denial(f"speak for {caller_of(origin)}")
        assert isinstance(session.peer, Peer)  # the same uid: with the groups that the kernel knows
        return msgspec.structs.replace(session.peer, via=_VIA, address=user.address)
    return origin


def _key(user: WebUser) -> str:
    return user.fingerprint if user.uid is None else str(user.uid)


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).digest()
