"""Users and groups in hostile files of a container (statement I8)."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaula.engine.containers.user_lookup import ResolvedUser, resolve_user
from jaula.errors import InvalidRequest

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# comment:x:5:5:::
www:x:33:33:www:/var/www:/bin/false
1000:x:77:77::/named:/bin/sh
alice:x:1000:1001:Alice:/home/alice:/bin/sh
relative:x:1002:1002::home:/bin/sh
bad:x:-1:0::/:/bin/sh
bad:x:99999999999:0::/:/bin/sh
bad:x:0x0:0::/:/bin/sh
bad:x::0::/:/bin/sh
bad:x:\u0661:0::/:/bin/sh
short:x:0
"""
GROUP = """\
root:x:0:
adm:x:4:alice,www
sudo:x:27:alice
wheel:x:10:root
none:x:-5:alice
none:x:4294967296:alice
"""

Resolve = Callable[..., ResolvedUser]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def collected() -> None:
    """Close the descriptors that tests of other modules have left to the collector."""
    gc.collect()


@pytest.fixture
def resolve(root: Path) -> Iterator[Resolve]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    yield lambda user, groups=(): resolve_user(fd, user, groups)
    assert len(os.listdir("/proc/self/fd")) == before, "descriptors left open"
    os.close(fd)


@pytest.mark.parametrize(
    ("user", "groups", "expected"),
    [
        ("", (), ResolvedUser(0, 0, (0, 10), "/root", "root")),
        ("root", (), ResolvedUser(0, 0, (0, 10), "/root", "root")),
        ("0", (), ResolvedUser(0, 0, (0, 10), "/root", "root")),
        ("alice", (), ResolvedUser(1000, 1001, (1001, 4, 27), "/home/alice", "alice")),
        ("1000", (), ResolvedUser(1000, 1001, (1001, 4, 27), "/home/alice", "alice")),
        ("4321", (), ResolvedUser(4321, 0, (0,), "/", "")),
        ("4321:adm", (), ResolvedUser(4321, 4, (4,), "/", "")),
        ("alice:27", (), ResolvedUser(1000, 27, (27,), "/home/alice", "alice")),
        ("alice:4444", (), ResolvedUser(1000, 4444, (4444,), "/home/alice", "alice")),
        ("alice:", (), ResolvedUser(1000, 1001, (1001, 4, 27), "/home/alice", "alice")),
        ("www", ("sudo", "777"), ResolvedUser(33, 33, (33, 4, 27, 777), "/var/www", "www")),
        ("relative", (), ResolvedUser(1002, 1002, (1002,), "/", "relative")),
        ("2147483647:2147483647", (), ResolvedUser(2**31 - 1, 2**31 - 1, (2**31 - 1,), "/", "")),
    ],
)
def test_a_user_is_resolved(
    resolve: Resolve, user: str, groups: tuple[str, ...], expected: ResolvedUser
) -> None:
    assert resolve(user, groups) == expected


@pytest.mark.parametrize(
    ("user", "policy", "gids"),
    [
        ("alice", "Merge", (1001, 4, 27, 777)),
        ("alice:27", "Merge", (27, 4, 777)),
        ("1000:4444", "Merge", (4444, 4, 27, 777)),
        ("4321:4", "Merge", (4, 777)),
        ("", "Merge", (0, 10, 777)),
        ("alice", "Strict", (1001, 777)),
        ("1000:27", "Strict", (27, 777)),
        ("", "Strict", (0, 777)),
    ],
)
def test_the_groups_of_a_pod_s_user_follow_its_policy(
    root: Path, user: str, policy: str, gids: tuple[int, ...]
) -> None:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        resolved = resolve_user(fd, user, ("777",), policy)
    finally:
        os.close(fd)
    assert (resolved.gid, resolved.additional_gids) == (gids[0], gids)


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("bad", "unable to find user bad: no matching entries in passwd file"),
        ("short", "unable to find user short: no matching entries in passwd file"),
        ("# comment", "invalid user"),
        ("root:nogroup", "unable to find group nogroup: no matching entries in group file"),
        ("root:none", "unable to find group none"),
        ("-1", "without a sign"),
        ("+0", "without a sign"),
        ("0:-1", "without a sign"),
        ("2147483648", "range 0-2147483647"),
        ("4294967296", "range 0-2147483647"),
        ("18446744073709551616", "range 0-2147483647"),
        ("0:4294967295", "range 0-2147483647"),
        ("1:2:3", "invalid group"),
        ("a\nb", "invalid user"),
        ("a b", "invalid user"),
        ("a\0", "invalid user"),
        ("../root", "invalid user"),
        ("\u0661\u0660", "unable to find user"),
        ("x" * 1000, "invalid user"),
    ],
)
def test_an_invalid_or_unknown_user_is_refused(resolve: Resolve, user: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        resolve(user)


def test_an_additional_group_must_exist_or_be_a_number(resolve: Resolve) -> None:
    for group in ("nogroup", "", "-4", "4294967296"):
        with pytest.raises(InvalidRequest):
            resolve("root", (group,))


def test_without_passwd_and_group_only_numbers_work(root: Path, resolve: Resolve) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/group").unlink()
    assert resolve("12:34") == ResolvedUser(12, 34, (34,), "/", "")
    assert resolve("") == ResolvedUser(0, 0, (0,), "/", "")
    with pytest.raises(InvalidRequest):
        resolve("root")


@pytest.mark.parametrize("name", ["passwd", "group"])
@pytest.mark.parametrize("kind", ["fifo", "link", "dangling", "directory", "huge", "magic"])
def test_a_hostile_file_is_refused_at_once(
    root: Path, resolve: Resolve, name: str, kind: str
) -> None:
    path = root / "etc" / name
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "link":
            (root / "real").write_text(PASSWD if name == "passwd" else GROUP)
            path.symlink_to("/real")
        case "dangling":
            path.symlink_to("/etc/passwd-of-the-host")
        case "magic":
            path.symlink_to("/proc/self/fd/0")
        case "directory":
            path.mkdir()
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 34)
    with pytest.raises(InvalidRequest):
        resolve("alice:adm")


def test_a_link_in_etc_does_not_leave_the_root(root: Path, resolve: Resolve) -> None:
    for file in (root / "etc").iterdir():
        file.unlink()
    (root / "etc").rmdir()
    (root / "etc").symlink_to("/../../../../../../etc")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        resolve("daemon")
    (root / "etc").unlink()
    (root / "etc").symlink_to("/usr/etc")
    (root / "usr/etc").mkdir(parents=True)
    (root / "usr/etc/passwd").write_text(PASSWD)
    assert resolve("www").uid == 33


def test_the_number_of_groups_is_bounded(root: Path, resolve: Resolve) -> None:
    lines = "".join(f"g:x:{n}:www\n" for n in range(66_000))
    (root / "etc/group").write_text(lines)
    with pytest.raises(InvalidRequest):
        resolve("www")


def test_bytes_that_are_not_utf8_are_accepted(root: Path, resolve: Resolve) -> None:
    (root / "etc/passwd").write_bytes(b"\xff\xfe:x:1:1::/\xff:/\n" + PASSWD.encode())
    assert resolve("www").uid == 33
    assert resolve("1").home == "/"
