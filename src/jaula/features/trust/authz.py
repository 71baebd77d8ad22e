"""Image signatures and the image policy, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.features.trust.trust import trust

if TYPE_CHECKING:
    from msgspec import Raw

    from jaula.engine.authz.caller_session import Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.engine.engine import Engine
    from jaula.spec.api_documents import RegistryAuth, SignatureAdd

Document = dict[str, Any]


def trust_api(api: EngineApi) -> TrustApi:
    """Return image trust as the caller of a connection may use it."""
    return TrustApi(api.engine, api.session)


class TrustApi:
    """Signatures need the images grant. The rules are in the operator's file and only readable."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._service = engine.service(trust)
        self._session = session

    def policy(self, name: str) -> Document:
        self._session.require_read()
        return self._service.policy(name)

    async def signatures(self, name: str, auth: RegistryAuth | None) -> Document:
        self._session.require_images()
        return await self._service.signatures(name, auth)

    async def sign(self, name: str, body: SignatureAdd, auth: RegistryAuth | None) -> Document:
        with self._session.begin("image sign", name) as action:
            action.require_images()
            return await self._service.sign(name, body, auth)

    async def sbom(self, name: str, form: str) -> Raw:
        self._session.require_read()
        return await self._service.sbom(name, form)
