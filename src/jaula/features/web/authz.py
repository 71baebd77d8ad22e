"""The web view, as one caller may use it: links to it, and its logins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.web import logins as web_logins

if TYPE_CHECKING:
    from jaula.engine.authz.caller_session import Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.features.web.logins import WebLogins

_MAX_URL = 256  # bytes


def web_api(api: EngineApi) -> WebApi:
    """Return the web view as the caller of a connection may use it."""
    return WebApi(api.engine.service(web_logins.web_logins), api.session)


class WebApi:
    """Every caller with access may ask for a link for itself. Only root may redeem links."""

    def __init__(self, logins: WebLogins, session: Session) -> None:
        self._logins = logins
        self._session = session

    def register(self, url: str) -> None:
        """Take the address of the web view that serves this engine.

        :raises NotAuthorized: when the caller may not do everything.
        """
        with self._session.begin("web register", url) as _:
            self._require_admin("be the web view")
            if not url.startswith(("http://", "https://")) or len(url) > _MAX_URL:
                raise InvalidRequest(f"{url[:80]!r} is not the URL of a web view")
            self._logins.url = url

    def create_link(self) -> dict[str, str]:
        """Return a link that logs the caller in, once.

        :raises NotFound: when no web view has registered.
        """
        self._session.require_read()
        with self._session.begin("web link", "") as action:
            code = self._logins.create(web_logins.user_of(self._session.peer))
            action.object = self._logins.url
            return {"Url": f"{self._logins.url}/login#{code}"}

    def redeem(self, code: str) -> dict[str, Any]:
        """Return the user who asked for a link.

        :raises NotAuthorized: when the code is not valid, or the caller may not redeem it.
        """
        with self._session.begin("web login", "") as action:
            self._require_admin("redeem links to the web view")
            user = self._logins.redeem(code)
            action.object = user.certificate if user.uid is None else str(user.uid)
            document: dict[str, Any] = msgspec.to_builtins(user)
            return document

    def whoami(self) -> dict[str, Any]:
        """Return the caller, and what its rule allows in general."""
        session = self._session
        session.require_read()
        return {
            "Caller": session.caller.key,
            "Name": session.caller_name,
            "Access": session.rule.access.name.lower(),
            "Rule": session.rule.name,
            "Others": session.rule.container_access.name.lower(),
            "Admin": session.is_admin,
        }

    def _require_admin(self, action: str) -> None:
        if not self._session.is_admin:
            raise self._session.denial(action)
