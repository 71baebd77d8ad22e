"""dockerd with `--userns-remap`: every container is in a user namespace with the daemon's ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.callers.caller import IMAGE, has_terminal
from harness.callers.dockerd import RemappedDockerd

pytestmark = [pytest.mark.needs("dockerd"), pytest.mark.xdist_group("dockerd")]


def test_ids_files_and_devices_are_mapped(remapped: RemappedDockerd) -> None:
    script = "id -u; tr -s ' ' </proc/self/uid_map; stat -c %u /bin/sh /dev/null; echo x >/dev/null"
    output = remapped.out("run", "--rm", IMAGE, "sh", "-c", script).splitlines()
    assert output[:3] == ["0", f" 0 {remapped.first} {remapped.number}", "0"]


def test_a_volume_belongs_to_the_mapped_user(remapped: RemappedDockerd) -> None:
    shared = remapped.namespaces.base / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    remapped("run", "--rm", "-u", "33", "-v", f"{shared}:/shared", IMAGE, "touch", "/shared/made")
    assert (shared / "made").stat().st_uid == remapped.first + 33


def test_exec_has_a_terminal_and_limits(remapped: RemappedDockerd) -> None:
    flags = ("--memory", "64m", "--read-only", "--tmpfs", "/tmp", "--init")
    remapped("run", "-d", "--name", "mapped", *flags, IMAGE, "sleep", "1000")
    pid = remapped.out("inspect", "-f", "{{.State.Pid}}", "mapped")
    assert Path(f"/proc/{pid}").stat().st_uid == remapped.first
    with remapped.terminal("exec", "-it", "mapped", "sh") as terminal:
        has_terminal(terminal)
        terminal.send("touch /tmp/x && exit 9\n")
        assert terminal.wait() == 9
    remapped("stop", "-t", "10", "mapped")
    remapped("rm", "mapped")


def test_userns_host_disables_the_mapping(remapped: RemappedDockerd) -> None:
    flags = ("--userns", "host", "--privileged")
    output = remapped.out("run", "--rm", *flags, IMAGE, "sh", "-c", "readlink /proc/self/ns/user")
    assert output == str(Path("/proc/self/ns/user").readlink())
