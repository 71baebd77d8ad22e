"""The use cases of secrets and configs: the routes of ``/secrets`` and ``/configs``.

Source: Docker Engine API 1.45, ``SecretList`` and related routes. The documents are the same, but
no swarm is needed. A container names its secrets in ``HostConfig.Secrets`` and ``.Configs``, which
are members of this engine alone.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from jaula.engine.model.label_filters import Filters, has_labels
from jaula.errors import Conflict, InvalidRequest
from jaula.features.secrets.secret_store import SecretKind, SecretRecord, secret_store
from jaula.logs import timestamp

if TYPE_CHECKING:
    from jaula.engine.engine import Engine
    from jaula.engine.model.services import Services
    from jaula.spec.api_documents import SecretSpec

Document = dict[str, Any]
Documents = list[Document]
Names = list[str]


def secrets(engine: Engine) -> Secrets:
    """Return the secrets of an engine."""
    return Secrets(engine.services, SecretKind.SECRET)


def configs(engine: Engine) -> Secrets:
    """Return the configs of an engine."""
    return Secrets(engine.services, SecretKind.CONFIG)


class Secrets:
    """All secrets of an engine, or all configs."""

    def __init__(self, services: Services, kind: SecretKind) -> None:
        self._services = services
        self._store = services.service(secret_store)
        self.kind = kind

    def find(self, ref: str) -> SecretRecord:
        """Return the record for a name or id.

        :raises NotFound: when there is none.
        """
        return self._store.find(self.kind, ref)

    def list(self, filters: Filters) -> Documents:
        """Return the records that pass ``id``, ``name``, ``names`` and ``label``."""
        return [
            self.document(record)
            for record in self._store.of(self.kind)
            if all(_fits(record, key, values) for key, values in filters.items())
        ]

    def document(self, record: SecretRecord) -> Document:
        """Return Docker's document; it has the content of a config, never that of a secret."""
        spec: Document = {"Name": record.name, "Labels": dict(record.labels)}
        if self.kind is SecretKind.CONFIG:
            spec["Data"] = base64.b64encode(self._store.data(record)).decode()
        return {
            "ID": record.id,
            "Version": {"Index": record.index},
            "CreatedAt": timestamp.format_time(record.created),
            "UpdatedAt": timestamp.format_time(record.updated),
            "Spec": spec,
            "Owner": record.owner,
        }

    def create(self, body: SecretSpec, owner: str, replaces: str = "") -> str:
        """Create a record and return its id.

        ``replaces`` is the id of the record that has the name and is removed with the creation; ''
        for none.

        :raises InvalidRequest: when a name, size, driver or template is not valid.
        :raises Conflict: when there is one of that name, when the one to replace has not got it any
            more, or when a container has that one.
        """
        if body.driver is not None and body.driver.name:
            raise InvalidRequest(
                f"{self.kind} driver {body.driver.name!r} not found: no drivers are supported"
            )
        if body.templating is not None and body.templating.name:
            raise InvalidRequest("templates are not supported", hint="expand the template first")
        data, store = _decoded(body.data), self._store
        if not replaces:
            record = store.create(self.kind, body.name, body.labels, data, owner)
        else:
            former = self._replaceable(replaces, body.name)
            record = store.replace(former, body.labels, data, owner)
            self._emit("remove", former)
        self._emit("create", record)
        return record.id

    def _replaceable(self, id: str, name: str) -> SecretRecord:
        """Return the record that a new one with its name may replace.

        :raises Conflict: when it is not the one with the name any more, or a container has it.
        """
        found = next((each for each in self._store.of(self.kind) if each.id == id), None)
        if found is None or found.name != name:
            raise Conflict(
                f"{self.kind} {name[:80]} was replaced or removed by another request meanwhile",
                hint="look at the present one, and try again",
            )
        self._check_unused(found)
        return found

    def update(self, ref: str, version: int, body: SecretSpec) -> None:
        """Change the labels.

        :raises InvalidRequest: when another member would change, or the version is not the present
            one.
        """
        record = self.find(ref)
        if version != record.index:
            raise InvalidRequest("update out of sequence")
        import hmac

        # Clients such as the docker command send the whole document, with the present data.
        unchanged = not body.data or hmac.compare_digest(
            _decoded(body.data), self._store.data(record)
        )
        if body.name not in ("", record.name) or not unchanged:
            raise InvalidRequest(f"only updates to Labels are allowed for a {self.kind}")
        self._emit("update", self._store.relabel(record, body.labels))

    def remove(self, ref: str) -> None:
        """Remove a record.

        :raises Conflict: when a container has it.
        """
        record = self.find(ref)
        self._check_unused(record)
        self._store.remove(record)
        self._emit("remove", record)

    def _check_unused(self, record: SecretRecord) -> None:
        if users := self._users(record):
            raise Conflict(
                f"{self.kind} '{record.name}' is in use by the following containers:"
                f" {', '.join(users)}"
            )

    def _users(self, record: SecretRecord) -> Names:
        users = []
        for container in self._services.container_store:
            host = container.record.host_config
            references = host.secrets if self.kind is SecretKind.SECRET else host.configs
            if any(reference.id == record.id for reference in references):
                users.append(container.name)
        return users

    def _emit(self, action: str, record: SecretRecord) -> None:
        self._services.events.emit(self.kind, action, record.id, {"name": record.name})


def _fits(record: SecretRecord, key: str, values: list[str]) -> bool:
    match key:
        case "id":
            return any(record.id.startswith(value) for value in values)
        case "name":
            return any(record.name.startswith(value) for value in values)
        case "names":
            return record.name in values
        case "label":
            return has_labels(record.labels, values)
    raise InvalidRequest(f"invalid filter '{key}'")


def _decoded(text: str) -> bytes:
    """Return the data of a request.

    :raises InvalidRequest: when it is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("Data is not base64") from None
