"""Trust in images, as one caller may look at it and add to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaula.engine.authz.session import Session
    from jaula.engine.engine import Engine
    from jaula.spec.api import RegistryAuth, SignatureAdd

Document = dict[str, Any]


class TrustApi:
    """Whoever may send images out may send signatures; the rules are the operator's file's."""

    def __init__(self, engine: Engine, visitor: Session) -> None:
        self._inner = engine.trust
        self._visitor = visitor

    def policy(self, name: str) -> Document:
        self._visitor.look()
        return self._inner.policy(name)

    async def signatures(self, name: str, auth: RegistryAuth | None) -> Document:
        self._visitor.run()
        return await self._inner.signatures(name, auth)

    async def sign(self, name: str, body: SignatureAdd, auth: RegistryAuth | None) -> Document:
        with self._visitor.deed("image sign", name) as deed:
            deed.images()
            return await self._inner.sign(name, body, auth)

    async def sbom(self, name: str, form: str) -> Document:
        self._visitor.look()
        return await self._inner.sbom(name, form)
