"""Whether a process that a runtime reports is in what the engine has made."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from jaula.runtime.external import identity
from jaula.runtime.external.identity import Identity

MADE = Identity((5, 7), {"network": 11})
HOST = {"mnt": {1, 2}, "network": {3}, "pid": {4}}


@pytest.mark.parametrize(
    ("made", "root", "namespaces", "expected"),
    [
        (MADE, (5, 7), {"mnt": 9}, ""),
        (MADE, (5, 8), {"mnt": 9}, "its root is not the container's"),
        (MADE, (6, 7), {"mnt": 9}, "its root is not the container's"),
        (MADE, (5, 7), {"mnt": 2}, "its mnt namespace is the host's"),
        (MADE, None, {"network": 11}, ""),
        (MADE, None, {"network": 3}, "its network namespace is not the container's"),
        (MADE, None, {"network": 12}, "its network namespace is not the container's"),
        (MADE, None, {"pid": 4}, "its pid namespace is the host's"),
        (MADE, None, {"pid": 5, "uts": 6}, ""),
        (None, (0, 2), {}, "its root is not the container's"),
        (None, (5, 7), {"network": 12}, ""),
        (None, None, {"network": 3}, "its network namespace is the host's"),
    ],
)
def test_a_process_is_the_container_s_only_in_what_was_made_for_it(
    made: Identity | None,
    root: tuple[int, int] | None,
    namespaces: dict[str, int],
    expected: str,
) -> None:
    assert (
        identity.problem(made, root=root, namespaces=namespaces, host_root=(0, 2), host=HOST)
        == expected
    )


def test_an_identity_is_read_back(tmp_path: Path) -> None:
    assert identity.read(str(tmp_path)) is None
    identity.write(str(tmp_path), "/", {"network": "/proc/self/ns/net"})
    status = os.stat("/")
    expected = Identity(
        (status.st_dev, status.st_ino), {"network": os.stat("/proc/self/ns/net").st_ino}
    )
    assert identity.read(str(tmp_path)) == expected


@pytest.mark.parametrize("data", [b"", b"{", b'{"root": [1]}', b'{"root": ["a", 2]}', b"\xff"])
def test_a_damaged_identity_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / identity.FILE).write_bytes(data)
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        identity.read(str(tmp_path))
