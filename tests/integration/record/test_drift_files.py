"""Drift of files that are not in the root's overlay, and of other storage drivers."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine
from integration.record.test_drift import drifting, execute, record, subjects
from jaula.features.record.fanotify_events import FanotifyGroup
from jaula.kernel import fanotify

# Seconds. The image of Debian is made from packages, and a queue of the kernel is filled.
pytestmark = pytest.mark.timeout(600)

MEMFD = (
    "use POSIX; my $fd = syscall(319, my $name = 'hidden', 0); open(my $in, '<', '/bin/true'); "
    "open(my $out, '>&=', $fd); local $/; print {$out} <$in>; $out->flush; "
    "exec {'/proc/self/fd/' . $fd} 'true';"
)


def test_a_library_that_the_image_does_not_have_is_a_drift(
    engine: PrivateEngine, debian: str
) -> None:
    with containers.running(engine, debian) as name, drifting(engine, name) as drift:
        assert drift.process.poll() is None
        done = execute(
            engine,
            name,
            "cp -L /lib/x86_64-linux-gnu/libc.so.6 /tmp/; LD_LIBRARY_PATH=/tmp sleep 3",
        )
        drifts = drift.end()
    assert subjects(drifts, "library") == ["/tmp/libc.so.6"], done
    assert [each["program"] for each in drifts] == ["/usr/bin/sleep"]


def test_a_program_without_a_file_is_a_drift(engine: PrivateEngine, debian: str) -> None:
    with containers.running(engine, debian) as name, drifting(engine, name) as drift:
        done = engine.cli("jaula", "exec", name, "perl", "-e", MEMFD)
        assert done.returncode == 0, done.stderr
        assert subjects(drift.end(), "program") == ["/memfd:hidden (detached)"]


def test_a_running_program_without_a_file_has_its_name_and_digest(
    engine: PrivateEngine, debian: str
) -> None:
    script = MEMFD.replace("/bin/true", "/bin/sleep").replace("'true'", "'sleep', '600'")
    with containers.running(engine, debian) as name:
        done = engine.cli("jaula", "exec", "-d", name, "perl", "-e", script)
        assert done.returncode == 0, done.stderr
        containers.eventually(
            lambda: "memfd" in execute(engine, name, "ls -l /proc/[0-9]*/exe").stdout, "the program"
        )
        with drifting(engine, name) as drift:
            drifts = drift.end()
    assert subjects(drifts, "program") == ["/memfd:hidden"]
    assert len(drifts[0]["digest"]) == 64


# mmap(2) of a page: read, write and execute; or made executable by mprotect(2) afterwards
RWX = "syscall(9, 0, 4096, 7, 0x22, -1, 0) > 0 or die; sleep 600"
LATER = (
    "my $page = syscall(9, 0, 4096, 3, 0x22, -1, 0); $page > 0 or die; "
    "syscall(10, $page, 4096, 5) == 0 or die; sleep 600"
)


@pytest.mark.parametrize("script", [RWX, LATER], ids=["mmap", "mprotect"])
def test_executable_memory_without_a_file_is_a_drift(
    engine: PrivateEngine, debian: str, script: str
) -> None:
    with containers.running(engine, debian) as name:
        with drifting(engine, name) as drift:
            done = engine.cli("jaula", "exec", "-d", name, "perl", "-e", script)
            assert done.returncode == 0, done.stderr
            containers.eventually(
                lambda: "perl" in execute(engine, name, "cat /proc/[0-9]*/comm").stdout, "perl"
            )
            drifts = drift.end()
        assert subjects(drifts, "memory") == ["anonymous"], drifts
        assert {each["program"] for each in drifts} == {"/usr/bin/perl"}
        with drifting(engine, name, "--allow-memory", "/usr/bin/perl") as drift:
            assert subjects(drift.end(), "memory") == []


def test_a_program_in_a_mount_namespace_of_its_own_is_a_drift(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    path = tmp_path / "record"
    script = "mkdir -p /mnt; mount -t tmpfs none /mnt; cp /bin/busybox /mnt/true; /mnt/true"
    flags = ("--cap-add", "SYS_ADMIN")
    with containers.running(engine, busybox, flags=flags) as name:
        with record(engine, name, path):
            execute(engine, name, "true")
        with drifting(engine, name, "--baseline", str(path)) as drift:
            done = engine.cli("jaula", "exec", name, "unshare", "-m", "sh", "-c", script)
            assert done.returncode == 0, done.stderr
            assert "/mnt/true" in subjects(drift.end(), "program")


def test_drift_with_a_copying_storage_driver(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    private = new_engine("--storage-driver", "vfs")
    image = load_image(private, "busybox")
    with containers.running(private, image) as name, drifting(private, name) as drift:
        execute(private, name, "ls / > /dev/null; cp /bin/busybox /tmp/true; /tmp/true")
        assert subjects(drift.end(), "program") == ["/tmp/true"]


def test_a_full_queue_is_reported_as_lost(
    engine: PrivateEngine, busybox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with containers.running(engine, busybox) as name:
        group = FanotifyGroup(containers.pid(engine, name), fanotify.FAN_OPEN_EXEC, executable=True)
        try:
            overflow = fanotify.Event(fanotify.FAN_Q_OVERFLOW, -1, 0, -1)
            answers = [[overflow], []]
            monkeypatch.setattr(fanotify, "read", lambda fd: answers.pop(0))
            assert list(group.read()) == []
            assert group.overflows == 1
        finally:
            group.close()


@pytest.mark.slow
def test_events_that_are_lost_are_a_drift(engine: PrivateEngine, busybox: str) -> None:
    """More programs than the queue of the kernel has places."""
    limit = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
    count = limit + 500
    if count > 20_000:
        pytest.skip("the queue is longer than on this kernel by default")
    with containers.running(engine, busybox) as name, drifting(engine, name) as drift:
        drift.process.send_signal(signal.SIGSTOP)
        script = f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); /bin/true; done"
        engine.cli("jaula", "exec", name, "sh", "-c", script, timeout=300)
        drift.process.send_signal(signal.SIGCONT)
        drifts = drift.end()
    assert "executed files" in subjects(drifts, "lost")
