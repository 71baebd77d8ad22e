"""The seal of a request in the audit log finds a record that another program has changed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

from conftest import load_image
from harness.audits import Audited
from harness.engine import PrivateEngine
from jaula.audit.model.result import Verdict


def test_a_record_changed_while_no_engine_runs_fails(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    image = load_image(engine, "busybox")
    for name in ("changed", "kept"):
        assert (
            engine.cli("jaula", "run", "-d", "--name", name, image, "sleep", "600").returncode == 0
        )
    assert engine.cli("jaula", "update", "--memory", "64m", "kept").returncode == 0
    for name in ("changed", "kept"):
        assert Audited(engine, name).rows()["request seal"].verdict is Verdict.HOLDS
    engine.stop()
    database = sqlite3.connect(engine.root / "lib" / "jaula.db")
    with database:
        for key, document in database.execute("SELECT id, document FROM containers").fetchall():
            record = json.loads(document)
            if record["name"] == "changed":
                record["args"] = ["sleep", "60"]
                values = (json.dumps(record).encode(), key)
                database.execute("UPDATE containers SET document = ? WHERE id = ?", values)
    database.close()
    engine.start()
    assert "changed without the engine" in Audited(engine, "changed").failing()["request seal"]
    assert Audited(engine, "kept").failing() == {}
