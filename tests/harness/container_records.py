"""The records of containers in an engine's database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from harness.engine import PrivateEngine


def change_records(engine: PrivateEngine, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite every record of a stopped engine."""
    assert engine.process is None
    with sqlite3.connect(engine.root / "lib" / "jaula.db") as raw:
        for key, text in raw.execute("SELECT id, document FROM containers").fetchall():
            document = json.loads(text)
            change(document)
            data = json.dumps(document).encode()
            raw.execute("UPDATE containers SET document = ? WHERE id = ?", (data, key))
    raw.close()


def records(engine: PrivateEngine) -> list[dict[str, Any]]:
    """Return every record."""
    with sqlite3.connect(engine.root / "lib" / "jaula.db") as raw:
        rows = raw.execute("SELECT document FROM containers").fetchall()
    raw.close()
    return [json.loads(text) for (text,) in rows]
