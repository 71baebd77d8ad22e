"""A profile is proven on a container that runs with it, and a deliberate hole is found."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine
from jaula.features.harden.tally import words

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the probing program is for x86_64"
)
CALLS = frozenset(
    words(
        """access arch_prctl brk clock_nanosleep close execve exit exit_group fstat futex getpid
        getuid ioctl mmap mprotect munmap nanosleep newfstatat openat prctl prlimit64 read
        readlink rseq rt_sigaction rt_sigprocmask rt_sigreturn set_robust_list
        set_tid_address getrandom write"""
    )
)


def document(*more: str, capabilities: str = "", write: str = "/tmp/") -> str:
    calls = json.dumps(sorted({*CALLS, *more}))
    return f"""name = "web"
capabilities = [{capabilities}]
[files]
write = ["{write}"]
tmpfs = {{ "{write.rstrip("/")}" = "" }}
[seccomp.syscalls]
x86_64 = {calls}
"""


def rows(engine: PrivateEngine, tmp_path: Path, running: str) -> dict[str, Any]:
    """Return the rows of the proof of ``document()`` for a container with another profile."""
    path = tmp_path / "running.toml"
    path.write_text(running)
    claimed = tmp_path / "claimed.toml"
    claimed.write_text(document())
    image = load_image(engine, "busybox")
    name = containers.unique("p")
    started = engine.cli(
        "jaula", "run", "-d", "--name", name, "--profile", str(path), image, "sleep", "600"
    )
    assert started.returncode == 0, started.stderr
    try:
        done = engine.cli(
            "jaula", "verify", "--probe", "--format", "json", "--profile", str(claimed), name
        )
        assert done.stdout, done.stderr
        checks = json.loads(done.stdout)
        found = {row["id"]: row for row in checks}
        failed = any(row["verdict"] == "FAILS" for row in checks)
        assert done.returncode == (1 if failed else 0), done.stderr
        return found
    finally:
        engine.cli("jaula", "rm", "-f", name)


def failing(found: dict[str, Any]) -> set[str]:
    return {id for id, row in found.items() if row["verdict"] not in ("holds", "relaxed")}


def test_a_container_under_its_profile_holds(engine: PrivateEngine, tmp_path: Path) -> None:
    found = rows(engine, tmp_path, document())
    assert failing(found) == set(), found
    count = len(CALLS | {"restart_syscall"})
    assert found["profile: calls x86_64"]["effective"].endswith(f"{count} of {count} allowed")


@pytest.mark.parametrize(
    ("running", "row", "text"),
    [
        (document("mincore"), "profile: calls x86_64", "also allowed: mincore"),
        (document("mincore"), "tried: profile: calls not in it", "mincore"),
        (document(capabilities='"CHOWN"'), "tried: profile: capabilities not in it", "CAP_CHOWN"),
        (document(write="/opt/"), "tried: profile: writes outside of it", "/opt"),
    ],
)
def test_a_hole_is_found(
    engine: PrivateEngine, tmp_path: Path, running: str, row: str, text: str
) -> None:
    found = rows(engine, tmp_path, running)
    assert {row, "profile"} <= failing(found), found
    assert text in found[row]["effective"]
