"""Whether one caller may use the engine at all, decided before its request is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.engine.authz.authorization_policy import ROOT, AccessLevel

if TYPE_CHECKING:
    from jaula.engine.authz.caller_session import Session


class AccessApi:
    """The identity of the caller for limits, and the checks that need no body of a request."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def caller(self) -> str:
        """The caller, as the owner of its objects."""
        return self._session.caller.key

    @property
    def is_root(self) -> bool:
        """Whether the caller is root on this host, whatever its rule."""
        return self._session.caller.uid == ROOT

    @property
    def is_allowed(self) -> bool:
        """Whether the caller may use the engine at all."""
        return self._session.rule.access > AccessLevel.NONE

    def require_access(self, request: str) -> None:
        """Check that the caller may use the engine; the audit log records a refusal.

        :raises NotAuthorized: when it may not.
        """
        if not self.is_allowed:
            with self._session.begin("connect", request):
                self._session.require_read()

    def require_body(self, request: str) -> None:
        """Check that the caller may send a body; the audit log records a refusal.

        :raises NotAuthorized: when it may not change anything.
        """
        if self._session.rule.access < AccessLevel.RUN:
            with self._session.begin("request", request):
                self._session.require_run()
