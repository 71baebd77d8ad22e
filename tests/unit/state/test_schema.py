"""The schema number rises with the members of the stored records.

An older engine would drop a member that it does not know when it writes a record. It refuses a
database with a higher number instead.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from jaula.features.secrets.secret_store import SecretRecord
from jaula.spec.network_record import NetworkRecord
from jaula.state.container_records import (
    BuildStep,
    ContainerRecord,
    EngineIdentity,
    GivenMigrations,
    StorageDriverRecord,
    StoredRequest,
)
from jaula.state.database import MIGRATIONS

STORED = (
    BuildStep,
    ContainerRecord,
    EngineIdentity,
    GivenMigrations,
    NetworkRecord,
    SecretRecord,
    StorageDriverRecord,
)
DIGESTS = {8: "3ae6713b64ed4e30"}
"""Digest of the members of all stored records, by schema number: the last number only."""


def members() -> dict[str, Any]:
    """Return the types of the members of each struct, and of the structs in them.

    A resolved request has another form in the database, with the name of its former class here.
    """
    found = (*STORED, StoredRequest)
    _, components = msgspec.json.schema_components(found, schema_hook=lambda _: {})
    del components["ResolvedRequest"], components["PodResources"]
    components["ResolvedRequest"] = components.pop("StoredRequest")
    components["ResourceLimits"] = components.pop("StoredResources")
    return {name: schema.get("properties") for name, schema in components.items()}


def digest() -> str:
    text = json.dumps(members(), sort_keys=True).replace("StoredResources", "ResourceLimits")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_changed_record_raises_the_schema_number() -> None:
    """If this fails: append a migration (an empty one does), and write its number and digest."""
    assert {len(MIGRATIONS): digest()} == DIGESTS
