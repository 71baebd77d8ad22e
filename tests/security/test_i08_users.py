"""I8: user and group strings have a strict grammar; passwd and group are read bounded."""

from __future__ import annotations

import pytest

from harness import containers, images
from harness.engine import PrivateEngine

TOO_LONG = "x" * 5000


@pytest.mark.parametrize(
    ("cve", "user"),
    [
        ("CVE-2024-40635", "4294967296"),
        ("CVE-2024-40635", "4294967295"),
        ("CVE-2024-40635", "2147483648000"),
        ("CVE-2024-40635", "1000:4294967296"),
        ("CVE-2026-46680", "-1"),
        ("CVE-2026-46680", "0x0"),
        ("CVE-2026-46680", "1000:-1"),
        ("CVE-2026-46680", "0:0:0"),
        ("CVE-2026-46680", "root\nroot"),
        ("CVE-2026-46680", "1000 "),
        ("CVE-2026-46680", TOO_LONG),
        ("CVE-2016-3697", "no-such-user"),
        ("CVE-2016-3697", "1000:no-such-group"),
    ],
)
def test_an_invalid_user_is_refused(
    engine: PrivateEngine, busybox: str, cve: str, user: str
) -> None:
    done = engine.cli("jaula", "run", "--rm", "-u", user, busybox, "id", "-u")
    assert done.returncode == 125, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("cve", "user", "expected"),
    [
        ("CVE-2016-3697", "1000", "1000"),
        ("CVE-2024-40635", "65535", "65535"),
        ("CVE-2016-3697", "1000:1000", "1000"),
    ],
)
def test_a_numeric_user_is_that_uid_whatever_passwd_contains(
    engine: PrivateEngine, cve: str, user: str, expected: str
) -> None:
    passwd = b"root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/:/bin/sh\n"
    entries = [*images.busybox_entries(without=("etc/passwd",)), images.file("etc/passwd", passwd)]
    name = images.import_image(engine, "numbered-user", entries)
    assert containers.run(engine, name, "id", "-u", flags=("-u", user)).strip() == expected


@pytest.mark.parametrize("cve", ["CVE-2022-2990 CVE-2022-2989"])
def test_no_unrequested_group_is_added(engine: PrivateEngine, busybox: str, cve: str) -> None:
    with containers.running(engine, busybox, flags=("-u", "1000:1000")) as name:
        status = containers.status(containers.pid(engine, name))
        inside = engine.cli("jaula", "exec", "-u", "1000:1000", name, "id", "-G").stdout.strip()
    assert inside == "1000"
    base = int(status["Uid"].split()[0]) - 1000
    assert {int(word) - base for word in status["Groups"].split()} <= {1000}


@pytest.mark.parametrize("cve", ["CVE-2022-2990"])
def test_requested_groups_are_set(engine: PrivateEngine, busybox: str, cve: str) -> None:
    flags = ("-u", "1000:1000", "--group-add", "2000", "--group-add", "root")
    output = containers.run(engine, busybox, "id", "-G", flags=flags).split()
    assert set(output) == {"1000", "2000", "0"}


HUGE = b"x:x:1:1::/:/bin/sh\n" * 1_000_000
HOSTILE: dict[str, images.Entry] = {
    "a fifo": images.fifo("etc/passwd"),
    "a link to a fifo": images.link("etc/passwd", "/tmp/fifo"),
    "a link out": images.link("etc/passwd", "../../../../../../etc/shadow"),
    "a link to /dev/zero": images.link("etc/passwd", "/dev/zero"),
    "a link to itself": images.link("etc/passwd", "passwd"),
    "a directory": images.directory("etc/passwd"),
    "a huge file": images.file("etc/passwd", HUGE),
    "a line without end": images.file("etc/passwd", b"a" * 8_000_000),
    "bytes that are no text": images.file("etc/passwd", b"\xff\xfe\x00:x:0:0:\n" * 100),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("cve", ["CVE-2026-46680"])
def test_a_hostile_passwd_is_bounded(engine: PrivateEngine, case: str, cve: str) -> None:
    entries = [
        *images.busybox_entries(without=("etc/passwd",)),
        images.fifo("tmp/fifo"),
        HOSTILE[case],
    ]
    name = images.import_image(engine, "hostile-passwd", entries)
    numeric = engine.cli("jaula", "run", "--rm", "-u", "1000", name, "id", "-u", timeout=20)
    assert numeric.returncode != 0 or numeric.stdout.strip() == "1000"
    named = engine.cli("jaula", "run", "--rm", "-u", "somebody", name, "true", timeout=20)
    assert named.returncode != 0
    assert "Traceback" not in numeric.stderr + named.stderr
