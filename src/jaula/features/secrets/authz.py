"""Secrets and configs, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine.authz.authorization_policy import ContainerAccess
from jaula.engine.authz.request_ceilings import Share
from jaula.engine.model.label_filters import Filters
from jaula.errors import NotFound
from jaula.features.secrets.secret_store import SecretKind, secret_store
from jaula.features.secrets.secrets import configs, secrets
from jaula.images.store.image_names import owner_name

if TYPE_CHECKING:
    from jaula.engine.authz.caller_session import Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.features.secrets.secrets import Secrets
    from jaula.spec.api_documents import ContainerCreate, SecretSpec
    from jaula.state.container_records import ResolvedRequest

Document = dict[str, Any]
Documents = list[Document]


def secrets_api(api: EngineApi) -> SecretsApi:
    """Return the secrets as the caller of a connection may use them."""
    return SecretsApi(api.engine.service(secrets), api.session)


def configs_api(api: EngineApi) -> SecretsApi:
    """Return the configs as the caller of a connection may use them."""
    return SecretsApi(api.engine.service(configs), api.session)


def require_secret(session: Session, kind: SecretKind, ref: str) -> None:
    """Check that the caller may use and change a secret or config. Skip one that is unknown.

    :raises NotAuthorized: when it may not.
    """
    try:
        record = session.services.service(secret_store).find(kind, ref)
    except NotFound:
        return  # the use case reports it with its own text
    if not session.can_access_owner(record.owner, ContainerAccess.CONTROL):
        raise session.denial(
            f"use {kind} {record.name} of {owner_name(record.owner)}",
            'that owner may, or the operator grants others = "control"',
        )


def authorize(session: Session, body: ContainerCreate, resolved: ResolvedRequest) -> None:
    """Check that the caller may use all secrets and configs that a container requests.

    :raises NotAuthorized: for the first one that it may not use.
    """
    for kind, references in (
        (SecretKind.SECRET, body.host_config.secrets),
        (SecretKind.CONFIG, body.host_config.configs),
    ):
        for reference in references:
            require_secret(session, kind, reference.source)


class SecretsApi:
    """Names and labels are visible to all callers with read access; changes need the owner.

    The content of a config is visible to its owner, and to callers that may read all containers.
    """

    def __init__(self, service: Secrets, session: Session) -> None:
        self._service = service
        self._session = session

    def list(self, filters: Filters) -> Documents:
        self._session.require_read()
        return [self._visible(document) for document in self._service.list(filters)]

    def inspect(self, ref: str) -> Document:
        self._session.require_read()
        return self._visible(self._service.document(self._service.find(ref)))

    def _visible(self, document: Document) -> Document:
        owner = self._service.find(document["ID"]).owner
        if "Data" in document["Spec"] and not self._session.can_access_owner(
            owner, ContainerAccess.READ
        ):
            del document["Spec"]["Data"]
        return document

    async def create(self, body: SecretSpec, replaces: str = "") -> str:
        if not replaces:
            return self._create(body)
        with self._session.begin(f"{self._service.kind} remove", replaces, revokes=True) as action:
            action.require_run()
            require_secret(self._session, self._service.kind, replaces)
            return self._create(body, replaces)

    def _create(self, body: SecretSpec, replaces: str = "") -> str:
        with self._session.begin(f"{self._service.kind} create", body.name) as action:
            action.require_run()
            stored = self._session.services.service(secret_store).of(self._service.kind)
            owners = ((secret.id, secret.owner) for secret in stored)
            self._session.check_new_name(str(self._service.kind), body.name, owners)
            if not replaces or self._owner_of(replaces) != self._session.caller.key:
                action.reserve(Share.SECRETS)
            action.reserve_document(body)
            return self._service.create(body, self._session.caller.key, replaces)

    def _owner_of(self, id: str) -> str:
        """Return the owner of a secret or config, '' if it is gone."""
        stored = self._session.services.service(secret_store).of(self._service.kind)
        return next((each.owner for each in stored if each.id == id), "")

    async def update(self, ref: str, version: int, body: SecretSpec) -> None:
        with self._session.begin(f"{self._service.kind} update", ref) as action:
            action.require_run()
            require_secret(self._session, self._service.kind, ref)
            labels = msgspec.structs.replace(body, data="")  # nothing else can change
            action.reserve_document(labels, owner=self._service.find(ref).owner)
            self._service.update(ref, version, body)

    async def remove(self, ref: str) -> None:
        with self._session.begin(f"{self._service.kind} remove", ref, revokes=True) as action:
            action.require_run()
            require_secret(self._session, self._service.kind, ref)
            self._service.remove(ref)
