"""Write-ahead logs of SQLite, compared with SQLite."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaula.features.trust.sbom.sqlite_wal import with_log, without_log


def _database(directory: Path, size: int) -> tuple[bytes, bytes]:
    """Return a database and its log, with pages that were written several times."""
    path = directory / "db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute(f"PRAGMA page_size={size}")
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("PRAGMA wal_autocheckpoint=0")
    writer.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)")
    for number in range(60):
        writer.execute("INSERT INTO t VALUES (?, ?)", (number, bytes([number]) * 700))
    writer.execute("DELETE FROM t WHERE n % 3 = 0")
    data, log = path.read_bytes(), path.with_name("db-wal").read_bytes()
    writer.close()
    return data, log


def _rows(data: bytes) -> list[tuple[int, bytes]]:
    database = sqlite3.connect(":memory:")
    try:
        database.deserialize(without_log(data))
        return database.execute("SELECT n, b FROM t ORDER BY n").fetchall()
    finally:
        database.close()


@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_the_log_is_applied_as_sqlite_does(tmp_path: Path, size: int) -> None:
    data, log = _database(tmp_path, size)
    expected = [(n, bytes([n]) * 700) for n in range(60) if n % 3]
    assert _rows(with_log(data, log)) == expected


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9])
def test_the_transactions_before_a_cut_are_the_content(tmp_path: Path, cut: float) -> None:
    data, log = _database(tmp_path, 4096)
    part = log[: int(len(log) * cut)]
    (tmp_path / "cut").write_bytes(data)
    (tmp_path / "cut-wal").write_bytes(part)
    reader = sqlite3.connect(tmp_path / "cut")
    expected = reader.execute("SELECT n, b FROM t ORDER BY n").fetchall()
    reader.close()
    assert _rows(with_log(data, part)) == expected


def test_a_changed_frame_ends_the_log(tmp_path: Path) -> None:
    data, log = _database(tmp_path, 4096)
    changed = bytearray(log)
    changed[len(log) // 2] ^= 1
    (tmp_path / "bad").write_bytes(data)
    (tmp_path / "bad-wal").write_bytes(changed)
    reader = sqlite3.connect(tmp_path / "bad")
    expected = reader.execute("SELECT n, b FROM t ORDER BY n").fetchall()
    reader.close()
    assert _rows(with_log(data, bytes(changed))) == expected


@given(st.binary(max_size=300), st.binary(max_size=300))
@settings(max_examples=200)
def test_any_bytes_make_no_more_than_database_and_log(data: bytes, log: bytes) -> None:
    assert len(with_log(data, log)) <= len(data) + len(log)
