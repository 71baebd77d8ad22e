"""The database: records survive, damage is reported and never overwritten."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from jaula.errors import CorruptState, Unavailable
from jaula.spec.api_documents import ContainerCreate
from jaula.state.container_records import ContainerRecord, EngineIdentity
from jaula.state.database import MIGRATIONS, Database


def record(name: str = "one") -> ContainerRecord:
    return ContainerRecord(
        id="a" * 64, name=name, created=1, body=ContainerCreate(image="busybox"), image="sha256:0"
    )


def test_a_record_is_read_back_by_the_next_engine(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    database = open_database(tmp_path / "jaula.db")
    database.put("containers", "a" * 64, record())
    database.close()
    again = open_database(tmp_path / "jaula.db")
    assert dict(again.all("containers", ContainerRecord)) == {"a" * 64: record()}


def test_the_files_that_the_next_engine_needs_remain(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    path = tmp_path / "a ?#%20.db"
    database = open_database(path)
    database.put("containers", "a" * 64, record())
    database.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        path.name,
        f"{path.name}-shm",
        f"{path.name}-wal",
    ]
    assert (tmp_path / f"{path.name}-wal").stat().st_size == 0  # every record is in the database


def test_a_record_survives_a_process_that_never_closes_it(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    open_database(tmp_path / "jaula.db").put("containers", "a", record())
    assert open_database(tmp_path / "jaula.db").get("containers", "a", ContainerRecord) == record()


def test_a_sync_writes_the_log_of_the_database_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_database: Callable[[Path], Database]
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    database = open_database(tmp_path / "jaula.db")
    database.put("containers", "a", record())
    changes = database.changes
    database.sync()
    assert synced == [f"{tmp_path}/jaula.db-wal", str(tmp_path)]  # the log is a new file
    database.delete("containers", "a")
    database.sync()
    assert synced[2:] == [f"{tmp_path}/jaula.db-wal"]
    assert database.changes == changes + 1


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.EIO, "check the disk"), (errno.ENOSPC, "free some space"), (errno.EDQUOT, "free some")],
)
def test_a_failed_sync_is_over_when_the_disk_works(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    open_database: Callable[[Path], Database],
    number: int,
    hint: str,
) -> None:
    def fail(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    database = open_database(tmp_path / "jaula.db")
    database.put("containers", "a", record())
    database.put("containers", "b", record("b"))
    database.delete("containers", "b")
    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", fail)
        for _ in range(2):
            with pytest.raises(Unavailable, match=os.strerror(number)) as caught:
                database.sync()
            assert hint in (caught.value.hint or "")
            assert "restart" not in (caught.value.hint or "")
    assert database.get("containers", "a", ContainerRecord) == record()
    database.sync()
    # What the kernel gave up is in the database file now, and the log begins again.
    assert (tmp_path / "jaula.db-wal").stat().st_size == 0
    database.put("containers", "c", record("c"))
    database.sync()
    assert [key for key, _ in database.all("containers", ContainerRecord)] == ["a", "c"]


def test_a_sync_needs_no_free_descriptor(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    database = open_database(tmp_path / "jaula.db")
    database.put("containers", "a", record())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open("/", os.O_RDONLY)
        database.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_changes_that_the_disk_has_lost_are_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_database: Callable[[Path], Database]
) -> None:
    """A file system that drops the page shows the former content after a failed write."""

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    database = open_database(tmp_path / "jaula.db")
    database.put("containers", "a", record())
    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", fail)
        with pytest.raises(Unavailable):
            database.sync()
    with contextlib.closing(sqlite3.connect(tmp_path / "jaula.db")) as other, other:
        other.execute("UPDATE containers SET document = ?", (b"former",))
    for _ in range(2):
        with pytest.raises(CorruptState, match="the disk has lost changes") as caught:
            database.sync()
    assert "restart the engine" in (caught.value.hint or "")


def test_a_transaction_that_is_undone_is_not_missed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_database: Callable[[Path], Database]
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    database = open_database(tmp_path / "jaula.db")
    database.put("containers", "a", record())

    def change_both() -> None:
        with database.transaction():
            database.put("containers", "a", record("other"))
            database.put("containers", "b", record("b"))
            raise KeyError

    with pytest.raises(KeyError):
        change_both()
    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", fail)
        with pytest.raises(Unavailable):
            database.sync()
    database.sync()


def test_putting_twice_replaces(tmp_path: Path, open_database: Callable[[Path], Database]) -> None:
    database = open_database(tmp_path / "jaula.db")
    database.put("containers", "a", record("one"))
    database.put("containers", "a", record("two"))
    result = database.get("containers", "a", ContainerRecord)
    assert result is not None
    assert result.name == "two"


def test_deleting_a_record_twice_is_not_an_error(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    database = open_database(tmp_path / "jaula.db")
    database.put("settings", "a", EngineIdentity("x"))
    database.delete("settings", "a")
    database.delete("settings", "a")
    assert database.get("settings", "a", EngineIdentity) is None


@pytest.mark.parametrize("damage", [b"no database at all", b"\0" * 8192])
def test_a_damaged_file_is_reported_and_not_touched(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "jaula.db"
    path.write_bytes(damage)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CorruptState) as caught:
        Database(path)
    assert os.listdir("/proc/self/fd") == before
    assert "damaged" in caught.value.message
    assert caught.value.hint
    assert path.read_bytes() == damage


def test_a_database_with_torn_pages_is_reported(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    path = tmp_path / "jaula.db"
    database = open_database(path)
    for number in range(200):
        database.put("containers", str(number), record())
    database.close()
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 3] = b"\xff" * 8192
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptState):
        list(open_database(path).all("containers", ContainerRecord))
    assert path.read_bytes() == bytes(data)


@pytest.mark.parametrize("document", [b"{", b"[]", b'{"id": 1}', b"\xff\xfe", b""])
def test_a_damaged_record_is_reported_with_its_key(
    tmp_path: Path, document: bytes, open_database: Callable[[Path], Database]
) -> None:
    path = tmp_path / "jaula.db"
    Database(path).close()
    raw = sqlite3.connect(path)
    raw.execute("INSERT INTO containers VALUES ('abc', ?)", (document,))
    raw.commit()
    raw.close()
    with pytest.raises(CorruptState, match="abc"):
        list(open_database(path).all("containers", ContainerRecord))


def test_a_database_of_a_newer_engine_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "jaula.db"
    Database(path).close()
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    raw.close()
    with pytest.raises(CorruptState, match="version"):
        Database(path)


def test_an_unwritable_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot open"):
        Database(tmp_path / "file" / "jaula.db")


def test_a_record_with_fields_of_a_newer_engine_is_still_read(
    tmp_path: Path, open_database: Callable[[Path], Database]
) -> None:
    path = tmp_path / "jaula.db"
    database = open_database(path)
    database.put_raw("settings", "x", b'{"id": "e", "colour": "blue"}')
    assert database.get("settings", "x", EngineIdentity) == EngineIdentity("e")
