"""The file of sessions: what a restart keeps, and what it must not."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from jaula.features.web import session_file
from jaula.features.web.session_file import open_sessions, settings_digest
from jaula.features.web.sessions import Sessions
from jaula.features.web.web_config import TlsFiles, WebConfig
from jaula.spec.api_params import WebUser

ALICE = WebUser(uid=1000, gid=1000, groups=(4, 27), name="alice", address="192.0.2.7")
PORT = 8320


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / f"jaula-web-{PORT}.sessions"


@contextmanager
def run(path: Path, clock: Clock, settings: str = "one", **options: float) -> Iterator[Sessions]:
    """Yield the sessions of one run of a view."""
    file = open_sessions((str(path.parent),), PORT, settings)
    assert file is not None
    try:
        yield Sessions(clock, file=file, **options)
    finally:
        file.close()


def test_a_session_outlives_the_process_with_its_user(path: Path, clock: Clock) -> None:
    with run(path, clock) as sessions:
        identifier, _ = sessions.create(ALICE, "link")
    with run(path, clock) as sessions:
        after = sessions.find(identifier)
        assert after is not None
        assert (after.user, after.method) == (ALICE, "link")
        assert sessions.find(identifier + "x") is None


def test_the_file_is_private_and_logs_no_reader_in(path: Path, clock: Clock) -> None:
    with run(path, clock) as sessions:
        identifier, _ = sessions.create(ALICE, "link")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert identifier.encode() not in path.read_bytes()


def test_identifiers_that_a_cookie_carried_are_not_accepted(path: Path, clock: Clock) -> None:
    with run(path, clock) as sessions:
        identifier, _ = sessions.create(ALICE, "link")
    document = msgspec.json.decode(path.read_bytes().partition(b"\n")[2])
    del document["format"]
    document["sessions"][0]["csrf"] = "x"
    content = msgspec.json.encode(document)
    path.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    with run(path, clock) as sessions:
        assert sessions.find(identifier) is None


def test_an_ended_session_does_not_come_back(path: Path, clock: Clock) -> None:
    with run(path, clock) as sessions:
        (first, _), (second, _) = (sessions.create(ALICE, "link") for _ in range(2))
        sessions.end(first)
    with run(path, clock) as sessions:
        assert sessions.find(first) is None
        assert sessions.find(second) is not None


def test_a_file_that_cannot_be_written_is_emptied(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run(path, clock) as sessions:
        identifier, _ = sessions.create(ALICE, "link")

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        sessions.end(identifier)
        monkeypatch.undo()
    with run(path, clock) as sessions:
        assert sessions.find(identifier) is None


def test_time_without_the_view_counts(path: Path, clock: Clock) -> None:
    with run(path, clock, idle=60, lifetime=3600) as sessions:
        identifier, _ = sessions.create(ALICE, "link")
    clock.now += 59
    with run(path, clock, idle=60, lifetime=3600) as sessions:
        assert sessions.find(identifier) is not None
        sessions.store()
    clock.now += 60
    with run(path, clock, idle=60, lifetime=3600) as sessions:
        assert len(sessions) == 0


def test_an_open_stream_counts_as_use_until_the_end_of_the_view(path: Path, clock: Clock) -> None:
    with run(path, clock, idle=60) as sessions:
        identifier, session = sessions.create(ALICE, "link")
        session.streams = 1
        clock.now += 600
        sessions.store()
    with run(path, clock, idle=60) as sessions:
        assert sessions.find(identifier) is not None


def test_sessions_of_a_later_time_or_another_boot_are_dropped(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with run(path, clock) as sessions:
        sessions.create(ALICE, "link")
    clock.now -= 1
    with run(path, clock) as sessions:
        assert len(sessions) == 0
    clock.now += 1
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    with run(path, clock) as sessions:
        sessions.create(ALICE, "link")
    monkeypatch.setattr(session_file, "_BOOT_ID", boot)
    with run(path, clock) as sessions:
        assert len(sessions) == 0


def test_sessions_of_other_settings_are_dropped(path: Path, clock: Clock) -> None:
    with run(path, clock, "one") as sessions:
        sessions.create(ALICE, "link")
    with run(path, clock, "two") as sessions:
        assert len(sessions) == 0


def test_what_decides_who_may_log_in_changes_the_digest(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("one")
    plain, tls = WebConfig(), WebConfig(tls=TlsFiles("c", "k", str(authority)))
    digests = {
        settings_digest(plain, "/run/a.sock", "http://a"),
        settings_digest(plain, "/run/b.sock", "http://a"),
        settings_digest(plain, "/run/a.sock", "http://b"),
        settings_digest(msgspec.structs.replace(plain, hosts=("x",)), "/run/a.sock", "http://a"),
        settings_digest(tls, "/run/a.sock", "http://a"),
    }
    authority.write_text("two")
    digests.add(settings_digest(tls, "/run/a.sock", "http://a"))
    assert len(digests) == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data.replace(b"alice", b"mally"),
        lambda data: b"\0" * len(data),
        lambda data: data + b"{}",
    ],
)
def test_a_damaged_file_has_no_sessions(path: Path, clock: Clock, damage: object) -> None:
    assert callable(damage)
    with run(path, clock) as sessions:
        sessions.create(ALICE, "link")
    path.write_bytes(damage(path.read_bytes()))
    with run(path, clock) as sessions:
        assert len(sessions) == 0


def test_a_file_or_directory_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir(0o700)
    file = directory / f"jaula-web-{PORT}.sessions"
    file.write_text("x")
    file.chmod(0o644)
    assert open_sessions((str(directory),), PORT, "") is None
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    assert open_sessions((str(directory),), PORT, "") is None
    file.unlink()
    os.mkfifo(file, 0o600)
    assert open_sessions((str(directory),), PORT, "") is None
    file.unlink()
    directory.chmod(0o777)
    assert open_sessions(("", "/no/such", str(directory)), PORT, "") is None
    directory.chmod(0o700)
    opened = open_sessions((str(tmp_path / "absent"), str(directory)), PORT, "")
    assert opened is not None
    opened.close()


def test_two_views_do_not_share_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_file, "_LOCK_SECONDS", 0.2)
    first = open_sessions((str(path.parent),), PORT, "")
    assert first is not None
    assert open_sessions((str(path.parent),), PORT, "") is None
    monkeypatch.setattr(session_file, "_LOCK_SECONDS", 10.0)
    timer = threading.Timer(0.3, first.close)  # a view that is about to end
    timer.start()
    second = open_sessions((str(path.parent),), PORT, "")
    assert second is not None
    second.close()
