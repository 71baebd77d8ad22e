"""The engine's id: random, made with the database, and the same as long as that lives."""

from __future__ import annotations

import uuid

from jaula.state.database import Database
from jaula.state.records import EngineIdentity

_KEY = "identity"


def engine_id(database: Database) -> str:
    """The id in this database, made now if there is none."""
    known = database.get("settings", _KEY, EngineIdentity)
    if known is None:
        known = EngineIdentity(str(uuid.uuid4()))
        database.put("settings", _KEY, known)
    return known.id
