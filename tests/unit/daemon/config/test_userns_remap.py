"""``--userns-remap``: the common range of a user in subuid and subgid."""

from __future__ import annotations

import pytest

from jaula.daemon.config import userns_remap
from jaula.errors import InvalidRequest
from jaula.rootless.subids import Range


@pytest.mark.parametrize(
    ("users", "groups", "common"),
    [
        ([(100000, 65536)], [(100000, 65536)], (100000, 65536)),
        ([(100000, 200000)], [(150000, 200000)], (150000, 150000)),
        ([(0, 65536), (10**6, 10**6)], [(10**6, 10**6)], (10**6, 10**6)),
        ([(10, 70000), (100000, 300000)], [(10, 500000)], (100000, 300000)),
    ],
)
def test_the_largest_common_range_is_chosen(
    users: list[tuple[int, int]], groups: list[tuple[int, int]], common: tuple[int, int]
) -> None:
    result = userns_remap.choose(
        tuple(Range(*r) for r in users), tuple(Range(*r) for r in groups), "jaula"
    )
    assert result == common


@pytest.mark.parametrize(
    ("users", "groups"),
    [
        ([], []),
        ([(100000, 65536)], []),
        ([(100000, 65535)], [(100000, 65535)]),
        ([(100000, 65536)], [(165536, 65536)]),
        ([(100000, 100000)], [(150000, 100000)]),
    ],
)
def test_a_range_too_small_for_one_container_is_an_error(
    users: list[tuple[int, int]], groups: list[tuple[int, int]]
) -> None:
    with pytest.raises(InvalidRequest, match="no 65536 ids"):
        userns_remap.choose(
            tuple(Range(*r) for r in users), tuple(Range(*r) for r in groups), "jaula"
        )


@pytest.mark.parametrize("name", ["no-such-user", "4294967295000", "default-user:group"])
def test_an_unknown_user_is_an_error(name: str) -> None:
    with pytest.raises(InvalidRequest, match="no user"):
        userns_remap.read(name)


def test_files_are_read_by_name_and_by_id(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{tmp_path}/ids"
    with open(path, "w") as file:
        file.write("root:200000:65536\n0:900000:131072\nother:1:999999999\nnonsense\n")
    monkeypatch.setattr(userns_remap, "FILES", (path, path))
    assert userns_remap.read("root") == (900000, 131072)
    assert userns_remap.read("0") == userns_remap.read("root:root")
