"""A record has the paths that calls make, remove and change, from each kind of directory."""

from __future__ import annotations

from pathlib import Path

from harness import containers
from harness.engine import PrivateEngine

from .test_record import by, execute, recording

SCRIPT = """
cd /tmp; mkdir d; cd d; echo > f; mv f g; ln g h; ln -s g s; chmod 600 g; chown 5 g; touch g
mkfifo p; mkdir ../e; rmdir /tmp/e; rm g; mkdir /tmp/d 2>/dev/null; find /tmp/d -name h -delete
"""


def test_changed_paths_are_recorded(engine: PrivateEngine, busybox: str, tmp_path: Path) -> None:
    with (
        containers.running(engine, busybox) as name,
        recording(engine, name, tmp_path / "record") as recorder,
    ):
        execute(engine, name, SCRIPT)
        record = recorder.end()
    assert record.end is not None
    assert record.end.losses == {}
    changes = [entry for entry in by(record, "/bin/sh") if entry.kind == "change"]
    changes += [entry for entry in record.entries.values() if entry.kind == "change"]
    found = {(entry.syscall.removesuffix("at").rstrip("2"), entry.path) for entry in changes}
    assert found >= {
        ("mkdir", "/tmp/d"),
        ("rename", "/tmp/d/f"),
        ("rename", "/tmp/d/g"),
        ("link", "/tmp/d/h"),
        ("symlink", "/tmp/d/s"),
        ("chmod", "/tmp/d/g"),
        ("mkdir", "/tmp/e"),
        ("rmdir", "/tmp/e"),
        ("unlink", "/tmp/d/g"),
    }
    assert ("mknod", "/tmp/d/p") in found
    assert {entry.count for entry in changes if entry.syscall == "mkdir"} == {1}
