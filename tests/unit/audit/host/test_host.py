"""The host's rows follow its sysctls, directories and socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from jaula.features.verify import host as package
from jaula.features.verify.host import (
    Host,
    api_socket,
    cgroup_trees,
    state_dirs,
    sysctls,
    user_namespaces,
)
from jaula.features.verify.model.result import Result, Verdict


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host in a directory: the engine's two directories, and settings that are good."""
    for name in ("root", "run", "proc/1", "tree"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("root", "run"):
        (tmp_path / name).chmod(0o711)
    for setting in sysctls.SETTINGS:
        write(tmp_path / "proc", setting.name, "4096" if "mmap" in setting.name else "2")
        for value in ("2", "1", "0", "65536"):
            if setting.is_hardened(value):
                write(tmp_path / "proc", setting.name, value)
                break
    write(tmp_path / "proc", "user/max_user_namespaces", "1000")
    write(tmp_path / "proc", "kernel/unprivileged_userns_clone", "0")
    line = f"36 35 0:30 / {tmp_path}/tree rw - cgroup2 none rw\n"
    (tmp_path / "proc/1/mountinfo").write_text(line)
    return Host(
        root=tmp_path / "root",
        run=tmp_path / "run",
        socket=tmp_path / "run" / "jaula.sock",
        release="6.18.44",
        version="#1",
        proc=tmp_path / "proc",
    )


def write(proc: Path, name: str, value: str) -> None:
    path = proc / "sys" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value + "\n")


def verdicts(rows: object) -> dict[str, Verdict]:
    return {row.id: row.verdict for row in rows if isinstance(row, Result)}  # type: ignore[attr-defined]


def test_a_good_host_passes(host: Host) -> None:
    for check in (sysctls, user_namespaces, state_dirs, api_socket):
        result = verdicts(check.check(host))
        assert set(result.values()) == {Verdict.HOLDS}, result


@pytest.mark.parametrize("setting", sysctls.SETTINGS, ids=lambda setting: setting.name)
def test_a_weak_sysctl_is_relaxed(host: Host, setting: sysctls.Setting) -> None:
    bad = next(value for value in ("0", "1", "-1", "3") if not setting.is_hardened(value))
    write(host.proc, setting.name, bad)
    result = verdicts(sysctls.check(host))
    assert result.pop(setting.name.replace("/", ".")) is Verdict.RELAXED
    assert set(result.values()) == {Verdict.HOLDS}


def test_a_setting_that_the_kernel_lacks_gives_no_row(host: Host) -> None:
    (host.proc / "sys" / "vm" / "unprivileged_userfaultfd").unlink()
    assert "vm.unprivileged_userfaultfd" not in verdicts(sysctls.check(host))


def test_disabled_or_unrestricted_user_namespaces_are_reported(host: Host) -> None:
    write(host.proc, "user/max_user_namespaces", "0")
    assert verdicts(user_namespaces.check(host))["user namespaces"] is Verdict.FAILS
    write(host.proc, "user/max_user_namespaces", "1000")
    write(host.proc, "kernel/unprivileged_userns_clone", "1")
    assert verdicts(user_namespaces.check(host))["unprivileged user namespaces"] is Verdict.RELAXED


@pytest.mark.parametrize("name", ["root", "run"])
@pytest.mark.parametrize("mode", [0o755, 0o777, 0o722])
def test_a_directory_that_other_users_can_access_fails(host: Host, name: str, mode: int) -> None:
    place = host.root if name == "root" else host.run
    (place / "inner").mkdir(mode=0o700)
    row = "state directory" if name == "root" else "run directory"
    assert verdicts(state_dirs.check(host))[row] is Verdict.HOLDS
    (place / "inner").chmod(mode)
    assert verdicts(state_dirs.check(host))[row] is Verdict.FAILS
    (place / "inner").chmod(0o700)
    place.chmod(mode)
    assert verdicts(state_dirs.check(host))[row] is Verdict.FAILS


def test_a_file_that_other_users_can_read_fails(host: Host) -> None:
    (host.root / "jaula.db").write_text("secret")
    (host.root / "jaula.db").chmod(0o600)
    assert verdicts(state_dirs.check(host))["state directory"] is Verdict.HOLDS
    (host.root / "jaula.db").chmod(0o644)
    assert verdicts(state_dirs.check(host))["state directory"] is Verdict.FAILS


@pytest.mark.parametrize(
    ("mode", "verdict"),
    [(0o600, "holds"), (0o660, "holds"), (0o666, "FAILS"), (0o777, "FAILS")],
)  # fmt: skip
def test_a_world_accessible_socket_fails(host: Host, mode: int, verdict: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(host.run)  # an address has 107 bytes
        try:
            listening.bind("jaula.sock")
        finally:
            os.chdir(here)
        host.socket.chmod(mode)
        assert verdicts(api_socket.check(host))["control socket"] == verdict


def test_a_path_that_is_not_a_socket_fails(host: Host) -> None:
    host.socket.write_text("")
    host.socket.chmod(0o600)
    assert verdicts(api_socket.check(host))["control socket"] is Verdict.FAILS


def test_v1_hierarchies_are_reported_and_writable_ones_fail(host: Host) -> None:
    assert verdicts(cgroup_trees.check(host))["cgroup version"] is Verdict.HOLDS
    tree = host.proc.parent / "tree"
    tree.chmod(0o777)
    result = verdicts(cgroup_trees.check(host))
    assert result["cgroup trees"] is Verdict.FAILS
    legacy = Host(root=host.root, run=host.run, socket=host.socket, proc=host.proc)
    (host.proc / "1/mountinfo").write_text(f"1 0 0:3 / {tree} rw - cgroup none rw,pids\n")
    assert verdicts(cgroup_trees.check(legacy))["cgroup version"] is Verdict.RELAXED


def test_unreadable_evidence_is_unknown(host: Host) -> None:
    (host.proc / "1" / "mountinfo").write_text("not a mount table\n")
    result = verdicts(package.verify(host))
    assert result["host-cgroups"] is Verdict.UNKNOWN


def test_the_directories_are_derived_from_the_socket(tmp_path: Path) -> None:
    (tmp_path / "containers").mkdir()
    result = package.of_engine(f"unix://{tmp_path}/jaula.sock", "/elsewhere")
    assert (result.root, result.run) == (Path("/elsewhere"), tmp_path)
    default = package.of_engine("tcp://10.0.0.1:2375", "")
    assert str(default.root) == "/var/lib/jaula"
    assert str(default.run) == "/run/jaula"
