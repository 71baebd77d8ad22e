"""I20: own session and devpts; the console travels by descriptor; TIOCSTI, TIOCLINUX refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import containers, images
from harness.engine import PROJECT, PrivateEngine
from harness.terminal import Terminal

TIOCSTI, TIOCLINUX = 0x5412, 0x541C
# Bits above the first 32 are dropped by the kernel; a filter that compares 64 would miss them.
HIGH = 1 << 32


def session(process: int) -> int:
    return os.getsid(process)


@pytest.mark.parametrize("flags", [(), ("-t",)])
@pytest.mark.parametrize("cve", ["CVE-2017-5226 CVE-2019-10063"])
def test_the_program_is_leader_of_its_session(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], cve: str
) -> None:
    with containers.running(engine, busybox, flags=flags) as name:
        process = containers.pid(engine, name)
        assert session(process) == process
        assert session(process) != session(os.getpid())


@pytest.mark.parametrize("request_code", [TIOCSTI, TIOCLINUX, TIOCSTI | HIGH, TIOCLINUX | HIGH])
@pytest.mark.parametrize("cve", ["CVE-2017-5226 CVE-2019-10063"])
def test_input_cannot_be_pushed_into_the_terminal(
    engine: PrivateEngine, request_code: int, cve: str
) -> None:
    program = (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); c.syscall.restype = ctypes.c_long;"
        f"r = c.syscall(16, 0, ctypes.c_ulong({request_code}), ctypes.c_char_p(b'x'));"
        "print('result', r, ctypes.get_errno())"
    )
    if os.uname().machine != "x86_64":
        program = program.replace("syscall(16,", "syscall(29,")
    words = [str(PROJECT / "jaula"), "run", "-it", "--rm", *images.host_tools(engine)]
    with Terminal([*words, "/usr/bin/python3", "-c", program], engine.environment()) as terminal:
        result = terminal.expect(r"result (-?\d+) (\d+)")
    assert (result[1], result[2]) == ("-1", "1"), "the ioctl was not refused with EPERM"


@pytest.mark.parametrize("cve", ["CVE-2025-52565"])
def test_the_terminal_is_in_the_devpts_of_the_container(
    engine: PrivateEngine, busybox: str, cve: str
) -> None:
    with containers.running(engine, busybox, flags=("-t",)) as name:
        process = containers.pid(engine, name)
        actual = containers.mountinfo(process)
        assert actual["/dev/pts"].fstype == "devpts"
        assert {"nosuid", "noexec"} <= actual["/dev/pts"].options
        inside = os.stat(f"/proc/{process}/root/dev/pts")
        assert inside.st_dev != os.stat("/dev/pts").st_dev
        # The terminal of descriptor 0 belongs to that devpts, not to the host's.
        assert os.stat(f"/proc/{process}/fd/0").st_dev == inside.st_dev
        assert (
            engine.cli("jaula", "exec", name, "readlink", "/proc/1/fd/0").stdout == "/dev/pts/0\n"
        )


@pytest.mark.parametrize("target", ["/proc/sys/kernel/core_pattern", "/tmp/elsewhere", "/"])
@pytest.mark.parametrize("cve", ["CVE-2025-52565"])
def test_a_link_in_place_of_the_console_is_not_followed(
    engine: PrivateEngine, canary: Path, target: str, cve: str
) -> None:
    entries = [*images.busybox_entries(), images.link("dev/console", target)]
    name = images.import_image(engine, "console-link", entries)
    done = engine.cli("jaula", "run", "--rm", "-t", name, "cat", "/proc/sys/kernel/core_pattern")
    assert "Traceback" not in done.stderr
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    assert done.returncode != 0 or done.stdout.strip() == pattern


def test_the_terminals_of_the_host_are_not_visible(engine: PrivateEngine, plain: str) -> None:
    listed = engine.cli("jaula", "exec", plain, "ls", "/dev/pts").stdout.split()
    assert set(listed) <= {"ptmx", "0"}
