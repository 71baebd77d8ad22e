"""Which mounts of a table were cloned with a recursive bind."""

from __future__ import annotations

from jaula.features.verify.checks.mount_identity import clones
from jaula.kernel.mountinfo import MountInfo, parse


def table(*targets: str) -> tuple[MountInfo, ...]:
    lines = [
        f"{number} 1 0:{number} / {target} rw - tmpfs x rw\n"
        for number, target in enumerate(targets, start=10)
    ]
    return parse("".join(lines))


def test_the_mounts_that_follow_a_bind_and_are_below_it_were_cloned_with_it() -> None:
    mounts = table("/", "/dev", "/bind", "/bind/a", "/bind/a/b", "/proc", "/bind/later")
    assert [m.target for m in clones(mounts, mounts[2])] == ["/bind/a", "/bind/a/b"]
    assert clones(mounts, mounts[1]) == []


def test_a_second_mount_at_the_place_of_a_bind_is_not_a_clone() -> None:
    mounts = table("/", "/bind", "/bind", "/bind/a")
    assert clones(mounts, mounts[1]) == []


def test_a_name_with_the_same_start_is_not_below() -> None:
    mounts = table("/", "/bind", "/binder")
    assert clones(mounts, mounts[1]) == []
