"""The schema, as the steps that lead to it. A step that was released is never edited."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE containers (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE settings (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",
    ),
    ("CREATE TABLE networks (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",),
    ("CREATE TABLE build_steps (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",),
    ("CREATE TABLE secrets (id TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID",),
)
