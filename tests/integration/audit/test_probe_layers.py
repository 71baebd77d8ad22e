"""Everything that a profile takes away is tried, and everything that it lists works."""

from __future__ import annotations

import json
import platform
import re
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
CALLS = words(
    """access arch_prctl brk clock_nanosleep close execve exit exit_group fstat futex getpid
    getuid ioctl mmap mprotect munmap nanosleep newfstatat openat prctl prlimit64 read
    readlink rseq rt_sigaction rt_sigprocmask rt_sigreturn set_robust_list
    set_tid_address getrandom write"""
)


def document(
    *, execute: str = '["/bin/"]', egress: str = '["tcp:192.0.2.53:53"]', pids: int = 20,
    devices: str = '["/dev/fuse"]', write: str = '["/tmp/", "/data/"]', memory: int = 64 << 20,
    process: str = "", cpus: float = 0.5, listen: str = '["tcp:8080"]',
) -> str:  # fmt: skip
    return f"""name = "web"
capabilities = []
devices = {devices}
[process]
{process}
[seccomp.syscalls]
x86_64 = {json.dumps(CALLS)}
[files]
execute = {execute}
write = {write}
volumes = ["/data"]
[files.tmpfs]
"/tmp" = "size=1m"
[network]
egress = {egress}
listen = {listen}
[limits]
pids = {pids}
memory = {memory}
cpus = {cpus}
"""


def rows(
    engine: PrivateEngine, tmp_path: Path, running: str, *options: str, claimed: str = ""
) -> dict[str, Any]:
    """Return the rows of the proof of a profile for a container that runs with another one."""
    run_with, claim = tmp_path / "running.toml", tmp_path / "claimed.toml"
    run_with.write_text(running)
    claim.write_text(claimed or document())
    image = load_image(engine, "busybox")
    name = containers.unique("p")
    started = engine.cli(
        "jaula", "run", "-d", "--name", name, "--profile", str(run_with), *options, image,
        "sleep", "600",
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    try:
        done = engine.cli(
            "jaula", "verify", "--probe", "--format", "json", "--profile", str(claim), name
        )
        assert done.stdout, done.stderr
        found = {row["id"]: row for row in json.loads(done.stdout)}
        failed = any(row["verdict"] == "FAILS" for row in found.values())
        assert done.returncode == (1 if failed else 0), done.stderr
        return found
    finally:
        engine.cli("jaula", "rm", "-f", "-v", name)


def failing(found: dict[str, Any]) -> set[str]:
    return {id for id, row in found.items() if row["verdict"] not in ("holds", "relaxed")}


def test_a_container_under_its_profile_holds(engine: PrivateEngine, tmp_path: Path) -> None:
    found = rows(engine, tmp_path, document())
    assert failing(found) == set(), [found[id]["effective"] for id in failing(found)]
    text = found["profile"]["effective"]
    refused, total, allowed, listed = map(int, re.findall(r"\d+", text))
    assert allowed == listed > 4, text
    assert total - refused == 1, text  # code that is mapped from the volume: relaxed
    for name in (
        "calls of i386 not in it", "calls of x32 not in it", "execution outside of it",
        "execution in memory", "connections not in it", "devices not in it", "limits",
        "privileges", "volumes in it", "devices in it", "connections in its list",
        "ports not in it", "ports in it",
    ):  # fmt: skip
        assert found[f"tried: profile: {name}"]["verdict"] == "holds", name


def test_programs_that_are_not_listed_are_refused(engine: PrivateEngine, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "other").chmod(0o755)
    bind = f"{tmp_path}/other:/usr/local/bin/other:ro"
    found = rows(engine, tmp_path, document(), "-v", bind)
    if "tried: profile: programs not in it" not in found:
        pytest.skip("this kernel has no AT_EXECVE_CHECK")
    assert found["tried: profile: programs not in it"]["verdict"] == "holds"
    assert found["profile"]["verdict"] == "relaxed", found["profile"]
    wider = document(execute='["/bin/", "/usr/local/bin/"]')
    hole = rows(engine, tmp_path, wider, "-v", bind, claimed=document())
    assert "/usr/local/bin/other" in hole["tried: profile: programs not in it"]["effective"]
    assert {"profile", "tried: profile: programs not in it"} <= failing(hole)


ALL = '["tcp:192.0.2.53:53", "tcp:0.0.0.0/0:*", "udp:0.0.0.0/0:*"]'


@pytest.mark.parametrize(
    ("running", "options", "rows_of_hole", "text"),
    [
        (document(execute='["/bin/", "/data/"]'), (), {"execution outside of it"}, "in /data"),
        (document(egress=ALL), (), {"connections not in it"}, "tcp:"),
        (document(devices='["/dev/fuse", "/dev/zero:/dev/kvm"]'), (), {"devices not in it"},
         "/dev/kvm"),
        (document(listen='["tcp:8080", "tcp:4444"]'), (), {"ports not in it"}, "tcp:4444"),
        (document(pids=60), (), {"limits"}, "28 threads"),
        (document(memory=160 << 20), (), {"limits"}, "80 MB"),
        (document(write='["/tmp/", "/data/", "/more/"]'), ("-v", "/more"), {"mounts not in it"},
         "/more"),
        (document(process="no-new-privileges = false"), (), {"privileges"}, "set-user-ID"),
    ],
)  # fmt: skip
def test_a_hole_is_found(
    engine: PrivateEngine, tmp_path: Path, running: str, options: tuple[str, ...],
    rows_of_hole: set[str], text: str,
) -> None:  # fmt: skip
    found = rows(engine, tmp_path, running, *options)
    names = {f"tried: profile: {name}" for name in rows_of_hole}
    assert {"profile", *names} <= failing(found), found
    assert all(text in found[name]["effective"] for name in names), found


def test_another_user_is_found(engine: PrivateEngine, tmp_path: Path) -> None:
    claimed = document(process='user = "1000:1000"', devices="[]")
    found = rows(engine, tmp_path, document(), claimed=claimed)
    assert "getuid other than 1000" in found["tried: profile: privileges"]["effective"]
    assert failing(rows(engine, tmp_path, claimed, claimed=claimed)) == set()


def test_limits_and_rules_are_read_from_the_kernel(engine: PrivateEngine, tmp_path: Path) -> None:
    found = rows(engine, tmp_path, document(cpus=2, egress='["udp:192.0.2.53:53"]'))
    assert found["profile: limit of cpus"]["effective"] == "2"
    rules = found["profile: rules of connections"]["effective"]
    assert "also allowed: udp:192.0.2.53:53" in rules
    assert "not allowed: tcp:192.0.2.53:53" in rules
    names = {"profile: limit of cpus", "profile: rules of connections"}
    assert names <= failing(found)


def test_the_general_attempts_are_made_under_a_profile(
    engine: PrivateEngine, tmp_path: Path
) -> None:
    path = tmp_path / "running.toml"
    path.write_text(document())
    image, name = load_image(engine, "busybox"), containers.unique("p")
    started = engine.cli(
        "jaula", "run", "-d", "--name", name, "--profile", str(path), image, "sleep", "600"
    )
    assert started.returncode == 0, started.stderr
    try:
        done = engine.cli("jaula", "verify", "--probe", "--format", "json", name)
        tried = [row for row in json.loads(done.stdout) if row["id"].startswith("tried")]
        assert len(tried) > 10
        assert {row["verdict"] for row in tried} == {"holds"}, tried
        assert done.returncode == 0, done.stderr
    finally:
        engine.cli("jaula", "rm", "-f", "-v", name)


def test_nothing_is_left(engine: PrivateEngine, tmp_path: Path) -> None:
    before = engine.cli("jaula", "volume", "ls", "-q").stdout
    rows(engine, tmp_path, document())
    assert "jaula-probe" not in engine.cli("jaula", "ps", "-a").stdout
    assert engine.cli("jaula", "volume", "ls", "-q").stdout == before
