"""I5: writes to /proc and /sys go to a private, verified mount and are read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import containers, images
from harness.engine import PrivateEngine

PORT_START = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@pytest.mark.parametrize("cve", ["CVE-2025-52881 CVE-2019-16884"])
def test_a_sysctl_is_in_effect_in_the_container_only(
    engine: PrivateEngine, busybox: str, cve: str
) -> None:
    before = PORT_START.read_text()
    flags = ("--sysctl", "net.ipv4.ip_unprivileged_port_start=81")
    output = containers.run(engine, busybox, "cat", str(PORT_START), flags=flags)
    assert output.strip() == "81"
    assert PORT_START.read_text() == before


@pytest.mark.parametrize(
    ("cve", "flags"),
    [
        ("CVE-2019-16884", ("-v", "fakeproc:/proc")),
        ("CVE-2019-19921", ("--tmpfs", "/proc")),
        ("CVE-2023-27561", ("-v", "fakeproc:/proc/self/attr")),
        ("CVE-2025-52881", ("--tmpfs", "/proc/sys/net")),
        ("CVE-2025-64750", ("-v", "fakeproc:/proc/self/attr/apparmor")),
        ("CVE-2019-16884", ("-v", "fakeproc:/sys/fs/cgroup")),
    ],
)
def test_mounts_over_kernel_files_never_replace_them(
    engine: PrivateEngine, busybox: str, cve: str, flags: tuple[str, ...]
) -> None:
    """The mount is refused, or the confinement is still in effect."""
    done = engine.cli(
        *("jaula", "run", "--rm", *flags, "--security-opt", "no-new-privileges"),
        *(busybox, "cat", "/proc/self/status"),
    )
    engine.request("DELETE", "/volumes/fakeproc?force=1")
    if done.returncode == 0:
        assert "NoNewPrivs:\t1" in done.stdout
        assert "Seccomp:\t2" in done.stdout
    else:
        assert "/proc" in done.stderr or "/sys" in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["proc", "sys", "proc/self"])
@pytest.mark.parametrize("cve", ["CVE-2019-19921 CVE-2023-27561"])
def test_an_image_with_links_in_place_of_proc_is_still_confined(
    engine: PrivateEngine, canary: Path, name: str, cve: str
) -> None:
    entries = images.busybox_entries(without=(name,))
    entries += [images.link(name, "/tmp/elsewhere"), images.directory("tmp/elsewhere")]
    image = images.import_image(engine, "linked-proc", entries)
    done = engine.cli("jaula", "run", "--rm", image, "cat", "/proc/self/status")
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        assert "Seccomp:\t2" in done.stdout


@pytest.mark.parametrize("flags", [("-v", "/shortcut"), ("--tmpfs", "/shortcut")])
@pytest.mark.parametrize("cve", ["CVE-2019-16884 CVE-2025-52881"])
def test_a_link_of_the_image_redirects_no_mount_to_proc(
    engine: PrivateEngine, cve: str, flags: tuple[str, ...]
) -> None:
    image = images.import_image(
        engine, "shortcut", [*images.busybox_entries(), images.link("shortcut", "/proc")]
    )
    sysctl = ("--sysctl", "net.ipv4.ip_unprivileged_port_start=81")
    done = engine.cli("jaula", "run", "--rm", *flags, *sysctl, image, "true")
    assert done.returncode == 125
    assert "a symbolic link leads into /proc" in done.stderr


def test_a_sysctl_is_never_written_to_a_fake_proc(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    forged = tmp_path / "sys/net/ipv4/ip_forward"
    forged.parent.mkdir(parents=True)
    forged.write_text("0")
    done = engine.cli(
        *("jaula", "run", "--rm", "-v", f"{tmp_path}:/proc"),
        *("--sysctl", "net.ipv4.ip_forward=1", busybox, "true"),
    )
    assert done.returncode == 125
    assert forged.read_text() == "0"


def test_proc_and_sys_are_kernel_file_systems(engine: PrivateEngine, plain: str) -> None:
    result = containers.mountinfo(containers.pid(engine, plain))
    assert (result["/proc"].fstype, result["/proc"].root) == ("proc", "/")
    assert (result["/sys"].fstype, result["/sys"].root) == ("sysfs", "/")
    for mount in ("/proc", "/sys"):
        assert {"nosuid", "nodev", "noexec"} <= result[mount].options
    assert "ro" in result["/sys"].options
