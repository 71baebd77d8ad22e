"""``--storage-opt``: the size, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jaula.engine.containers.bounds import Bounds
from jaula.engine.containers.storage_opt import default_size, size_limit
from jaula.errors import InvalidRequest


def test_without_an_option_there_is_no_limit() -> None:
    assert size_limit({}) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("10485760", 10 << 20), ("10m", 10 << 20), ("1.5G", 3 << 29), ("2TiB", 2 << 40)],
)
def test_a_size_is_read_as_docker_reads_it(text: str, size: int) -> None:
    assert size_limit({"size": text}) == size
    assert size_limit({"SIZE": text}) == size


@pytest.mark.parametrize("text", ["", "-1", "1000", "many", "1m2", "1e9", "9999999p"])
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid size in --storage-opt"):
        size_limit({"size": text})


def test_another_option_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="unknown option 'inodes'"):
        size_limit({"inodes": "5"})


@pytest.mark.parametrize(
    ("bound", "quotas", "size"), [(0, True, None), (0, False, None), (5, False, None), (5, True, 5)]
)
def test_a_container_without_a_size_has_that_of_its_owner_where_quotas_exist(
    bound: int, quotas: bool, size: int | None
) -> None:
    driver: Any = SimpleNamespace(has_quotas=quotas)
    assert default_size(Bounds(storage_size=bound), driver) == size
