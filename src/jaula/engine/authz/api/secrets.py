"""Secrets and configs, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine.authz.rule import ContainerAccess
from jaula.engine.model.filters import Filters

if TYPE_CHECKING:
    from jaula.engine.authz.session import Session
    from jaula.engine.secrets.service import Secrets as Inner
    from jaula.spec.api import SecretSpec

Document = dict[str, Any]
Documents = list[Document]


class SecretsApi:
    """Names and labels are seen by all who may look; the rest is their owner's.

    A config's content is shown to its owner and to whoever may read others' containers.
    """

    def __init__(self, inner: Inner, visitor: Session) -> None:
        self._inner = inner
        self._visitor = visitor

    def list(self, filters: Filters) -> Documents:
        self._visitor.look()
        return [self._shown(document) for document in self._inner.list(filters)]

    def inspect(self, ref: str) -> Document:
        self._visitor.look()
        return self._shown(self._inner.document(self._inner.find(ref)))

    def _shown(self, document: Document) -> Document:
        owner = self._inner.find(document["ID"]).owner
        if "Data" in document["Spec"] and not self._visitor.reaches(owner, ContainerAccess.READ):
            del document["Spec"]["Data"]
        return document

    async def create(self, body: SecretSpec) -> str:
        with self._visitor.deed(f"{self._inner.kind} create", body.name) as deed:
            deed.run()
            return self._inner.create(body, self._visitor.caller.key)

    async def update(self, ref: str, version: int, body: SecretSpec) -> None:
        with self._visitor.deed(f"{self._inner.kind} update", ref) as deed:
            deed.run()
            self._visitor.own_secret(self._inner.kind, ref)
            self._inner.update(ref, version, body)

    async def remove(self, ref: str) -> None:
        with self._visitor.deed(f"{self._inner.kind} remove", ref, lessens=True) as deed:
            deed.run()
            self._visitor.own_secret(self._inner.kind, ref)
            self._inner.remove(ref)
