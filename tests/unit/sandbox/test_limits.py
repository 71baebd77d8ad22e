"""The ids of a sandboxed process."""

from __future__ import annotations

import pytest

from jaula.sandbox.sandbox_limits import worker_ids

HOST = "         0          0 4294967295\n"


@pytest.mark.parametrize(
    ("uid_map", "gid_map", "euid", "expected"),
    [
        (HOST, HOST, 0, (65534, 65534)),
        ("0 1000 1\n1 100000 65536\n", "0 1000 1\n1 100000 65536\n", 0, (65534, 65534)),
        ("0 1000 1\n1 100000 1000\n", "0 1000 1\n1 100000 500\n", 0, (1000, 500)),
        ("0 1000 1\n", "0 1000 1\n", 0, (0, 0)),
        (HOST, HOST, 1000, (1000, 1000)),
    ],
)
def test_a_process_has_the_ids_of_nobody_or_the_highest_mapped_ones(
    uid_map: str, gid_map: str, euid: int, expected: tuple[int, int]
) -> None:
    assert worker_ids(uid_map, gid_map, euid, euid) == expected
