"""The ceilings of a rule without a line for them: a share of the machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jaula.config import EngineConfig, Paths
from jaula.engine.authz import policy_file, request_ceilings
from jaula.engine.authz.machine import read_machine
from jaula.engine.authz.request_ceilings import (
    UNLIMITED,
    Bound,
    Ceilings,
    Demand,
    DiskBound,
    Machine,
    machine_ceilings,
)
from jaula.engine.containers.log_config import requested_files
from jaula.engine.containers.resolved_request import resolve
from jaula.spec.api_documents import ContainerCreate, HostConfig, LogConfig, Ulimit

GIB = 1 << 30
MACHINE = Machine(
    memory=16 * GIB, threads=120_000, open_files=1 << 20, disk=800 * GIB, pids_limit=4096
)
SMALL = Machine(GIB // 2, 3_000, 1 << 20, 4 * GIB, pids_limit=4096)
DEFAULTS = machine_ceilings(MACHINE)


def test_each_ceiling_is_a_share_of_the_machine() -> None:
    assert DEFAULTS == {
        "pids": 30_000,
        "shm_size": 8 * GIB,
        "memlock": 2 * GIB,
        "nofile": 1 << 20,
        "log_size": 25 * GIB,
        "storage_size": 200 * GIB,
        "build_cache": 100 * GIB,
        "record_size": 64 << 20,
        "image_documents": 64 << 20,
    }
    assert machine_ceilings(SMALL)["record_size"] == 32 << 20


@pytest.mark.parametrize("machine", [MACHINE, SMALL])
def test_the_defaults_of_a_container_are_within_them(machine: Machine) -> None:
    ceilings = Ceilings().with_defaults(machine_ceilings(machine))
    body = ContainerCreate()
    for demand in request_ceilings.of_request(body.host_config, resolve(body), machine.pids_limit):
        assert ceilings.allow(demand), demand
    files = Demand(Bound.ULIMIT, 524_288, "nofile")
    assert ceilings.allow(files)
    assert ceilings.allow(*request_ceilings.of_log(20_000_000, 5))  # Docker's driver local


DENIED: list[dict[str, Any]] = [
    {"pids_limit": -1},
    {"pids_limit": 0},
    {"pids_limit": 30_001},
    {"shm_size": 8 * GIB + 1},
    {"ulimits": (Ulimit(name="memlock", soft=-1, hard=-1),)},
    {"ulimits": (Ulimit(name="MEMLOCK", soft=0, hard=2 * GIB + 1),)},
    {"ulimits": (Ulimit(name="nofile", soft=1, hard=(1 << 20) + 1),)},
]


@pytest.mark.parametrize("host", DENIED)
def test_more_than_a_share_is_above_them(host: dict[str, Any]) -> None:
    body = ContainerCreate(host_config=HostConfig(**host))
    demands = request_ceilings.of_request(body.host_config, resolve(body), 4096)
    ceilings = Ceilings().with_defaults(DEFAULTS)
    (demand,) = [each for each in demands if not ceilings.allow(each)]
    assert "unlimited" not in ceilings.advice(demand)
    assert all(Ceilings().allow(each) for each in demands)  # without a machine there is no share


def rule(*lines: str) -> Ceilings:
    text = '[default]\naccess = "run"\n' + "\n".join(lines)
    policy = policy_file.parse(text.encode(), user=lambda name: None, group=lambda name: None)
    return policy.default.ceilings


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ('max-pids = "unlimited"', "pids", UNLIMITED),
        ("max-pids = 90000", "pids", 90_000),
        ("max-pids = 10", "pids", 10),
        ('max-shm-size = "unlimited"', "shm_size", UNLIMITED),
        ('max-log-size = "1g"', "log_size", GIB),
        ('max-storage-size = "unlimited"', "storage_size", UNLIMITED),
        ('max-build-cache = "900g"', "build_cache", 900 * GIB),
        ('max-record-size = "1m"', "record_size", 1 << 20),
        ('max-record-size = "unlimited"', "record_size", UNLIMITED),
        ('max-image-documents = "1g"', "image_documents", GIB),
    ],
)
def test_a_line_of_the_policy_replaces_a_share(line: str, field: str, value: int) -> None:
    assert getattr(rule(line).with_defaults(DEFAULTS), field) == value


@pytest.mark.parametrize(
    ("line", "memlock", "nofile"),
    [
        ('ulimits = ["memlock"]', UNLIMITED, 1 << 20),
        ('ulimits = ["MEMLOCK=5"]', 5, 1 << 20),
        ('ulimits = ["*"]', UNLIMITED, UNLIMITED),
        ('ulimits = ["nofile=2000000"]', 2 * GIB, 2_000_000),
    ],
)
def test_an_entry_of_ulimits_replaces_its_share(line: str, memlock: int, nofile: int) -> None:
    ulimits = rule(line).with_defaults(DEFAULTS).ulimits
    assert (ulimits["memlock"], ulimits["nofile"]) == (memlock, nofile)


@pytest.mark.parametrize(
    ("lines", "pids"),
    [
        (("", "max-pids = 10"), 30_000),
        (("", "max-pids = 90000"), 90_000),
        (("max-pids = 5", "max-pids = 10"), 10),
        (("", 'max-pids = "unlimited"'), UNLIMITED),
        (("max-pids = 5", 'max-pids = "unlimited"'), UNLIMITED),
    ],
)
def test_a_user_in_several_groups_has_the_highest(lines: tuple[str, ...], pids: int) -> None:
    for order in (lines, lines[::-1]):
        united = request_ceilings.union(tuple(map(rule, order)))
        assert united.with_defaults(DEFAULTS).pids == pids


def test_without_a_limit_of_the_engine_there_is_none_of_processes() -> None:
    machine = MACHINE._replace(pids_limit=0)
    assert machine_ceilings(machine)["pids"] == UNLIMITED


@pytest.mark.parametrize(
    ("type", "config", "size"),
    [
        ("", {}, None),
        ("json-file", {}, None),
        ("json-file", {"max-size": "5m"}, 15_000_000),
        ("json-file", {"max-size": "1g", "max-file": "7"}, 7_000_000_000),
        ("json-file", {"max-size": "-1"}, UNLIMITED),
        ("", {"max-size": "0"}, UNLIMITED),
        ("json-file", {"max-file": "500"}, 5_000_000_000),
        ("json-file", {"max-size": "-1", "mode": "non-blocking"}, UNLIMITED),
        ("local", {"max-size": "1g", "max-file": "2"}, 2_000_000_000),
        ("syslog", {"cache-max-size": "3g", "cache-max-file": "2"}, 6_000_000_000),
        ("syslog", {"cache-disabled": "true"}, None),
        ("none", {}, None),
    ],
)
def test_a_log_asks_for_all_of_its_files(
    tmp_path: Path, type: str, config: dict[str, str], size: int | None
) -> None:
    engine = EngineConfig(paths=Paths(tmp_path, tmp_path))
    found = requested_files(engine, LogConfig(type=type, config=config))
    if size is None:
        assert found is None
        return
    assert found is not None
    (demand,) = request_ceilings.of_log(found.max_size, found.max_file)
    assert (demand.bound, demand.amount) == (DiskBound.LOG_SIZE, size)


def test_a_denied_amount_names_the_line_that_allows_it() -> None:
    ceilings = Ceilings().with_defaults(DEFAULTS)
    (log,) = request_ceilings.of_log(0, 3)
    assert ceilings.line(log) == 'max-log-size = "unlimited"'
    assert ceilings.advice(log) == "the most is 25GiB: max-size times max-file of --log-opt"
    (storage,) = request_ceilings.of_storage(201 * GIB)
    assert not ceilings.allow(storage)
    assert ceilings.line(storage) == f'max-storage-size = "{201 << 10}m"'
    assert str(storage) == "storage-size=201GiB"
    assert request_ceilings.of_storage(None) == ()


def test_the_machine_is_read(tmp_path: Path) -> None:
    machine = read_machine(tmp_path, 4096)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert abs(machine.memory - pages) < 1 << 20
    assert min(machine) > 0
