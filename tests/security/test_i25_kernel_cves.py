"""I25: a table of kernel versions with known vulnerabilities, reported by ``verify --host``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.engine import PrivateEngine
from jaula.features.verify import host
from jaula.features.verify.host import Host, kernel_version
from jaula.features.verify.host.kernel_cves import KERNEL_CVES, KernelCve, Version
from jaula.features.verify.model.result import Verdict


def rows(engine: PrivateEngine) -> dict[str, dict[str, str]]:
    done = engine.cli("jaula", "verify", "--host", "--format", "json")
    return {row["id"]: row for row in json.loads(done.stdout)}


def test_the_running_kernel_is_reported_by_its_version(engine: PrivateEngine) -> None:
    row = rows(engine)["kernel"]
    release = os.uname().release.split("-")[0].split("+")[0]
    assert row["evidence"].startswith(("uname", "/proc/version_signature"))
    assert row["effective"].split(":")[0].split(".")[:2] == release.split(".")[:2]
    assert row["verdict"] in ("holds", "FAILS", "unknown")
    assert f"{len(KERNEL_CVES)} known CVEs" in row["requested"]


def before(release: Version) -> Version | None:
    major, minor, patch = release
    return (major, minor, patch - 1) if patch else None


CASES = [
    (hole, release) for hole in KERNEL_CVES for release in (*hole.stable, hole.fixed)
]  # the first releases without the hole


@pytest.mark.parametrize(
    ("hole", "release"), CASES, ids=[f"{h.cve} {'.'.join(map(str, r))}" for h, r in CASES]
)
def test_a_fixed_release_passes_and_the_one_before_fails(
    tmp_path: Path, hole: KernelCve, release: Version
) -> None:
    def told(version: Version) -> tuple[Verdict, str]:
        text = ".".join(map(str, version))
        where = {"root": tmp_path, "run": tmp_path, "socket": tmp_path / "s", "proc": tmp_path}
        (row,) = kernel_version.check(Host(release=text, version="#1 SMP", **where))
        return row.verdict, row.effective

    assert hole.cve not in told(release)[1]
    if (older := before(release)) is not None:
        verdict, effective = told(older)
        assert verdict is Verdict.FAILS
        assert hole.cve in effective


@pytest.mark.parametrize("cve", ["CVE-2022-0847", "CVE-2022-0185"])
def test_the_command_fails_on_a_vulnerable_kernel(
    engine: PrivateEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cve: str
) -> None:
    """This host, with a kernel of January 2022."""
    facts = host.of_engine(engine.host, str(engine.root / "lib"))
    old = Host(root=facts.root, run=facts.run, socket=facts.socket, release="5.16.1", version="")
    result = {row.id: row for row in host.verify(old)}
    assert result["kernel"].verdict is Verdict.FAILS
    assert cve in result["kernel"].effective


def test_directories_and_socket_of_an_engine_are_private(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    result = rows(engine)
    for name in ("state directory", "run directory", "control socket"):
        assert result[name]["verdict"] == "holds", result[name]
    engine.socket.chmod(0o666)
    (engine.root / "lib" / "volumes").chmod(0o755)
    try:
        result = rows(engine)
    finally:
        engine.socket.chmod(0o600)
        (engine.root / "lib" / "volumes").chmod(0o711)
    assert result["control socket"]["verdict"] == "FAILS"
    assert result["state directory"]["verdict"] == "FAILS"
