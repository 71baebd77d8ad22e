"""Limits: refused values, warnings, and the resources of the spec."""

from __future__ import annotations

import msgspec
import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.containers.update import merge_limits
from jaula.engine.oci_spec import spec_resources
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.errors import Conflict, InvalidRequest, JaulaError, Unsupported
from jaula.spec import api_documents
from jaula.spec.api_documents import ContainerCreate, ContainerUpdate, HostConfig, Ulimit
from jaula.spec.pod import PodContainerUpdate
from jaula.spec.runtime_spec import CPU, HugepageLimit, Memory, Pids, Resources, Rlimit
from jaula.state.container_records import ContainerRecord, PodResources

HOST = HostFacts(online_cpus=frozenset({0, 1}), pids_limit=4096)
MIB = 1 << 20


V1 = msgspec.structs.replace(HOST, cgroup_version=1, controllers=frozenset({"cpu", "memory"}))
V2 = msgspec.structs.replace(HOST, controllers=frozenset({"cpu", "memory", "hugetlb"}))


def limits(**fields: object) -> api_documents.Resources:
    return api_documents.Resources(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory": 4 * MIB}, "Minimum memory limit allowed is 6MB"),
        ({"memory": -5}, "Minimum memory"),
        ({"memory_swap": 64 * MIB}, "always set the Memory limit"),
        ({"memory": 64 * MIB, "memory_swap": 32 * MIB}, "larger than memory limit"),
        ({"memory": 64 * MIB, "memory_swap": -2}, "-1 for no limit"),
        ({"memory": 64 * MIB, "memory_reservation": 65 * MIB}, "less than memory reservation"),
        ({"memory_swappiness": 101}, "0-100"),
        ({"nano_cpus": 3 * 10**9}, "only 2 CPUs available"),
        ({"nano_cpus": 1}, "Range of CPUs"),
        ({"nano_cpus": 10**9, "cpu_quota": 5000}, "Conflicting options"),
        ({"cpu_period": 10}, "period"),
        ({"cpu_shares": 1}, "the minimum allowed cpu-shares is 2"),
        ({"cpu_shares": 262_145}, "the maximum allowed cpu-shares is 262144"),
        ({"cpu_quota": 10}, "quota"),
        ({"cpu_shares": -1}, "positive"),
        ({"cpuset_cpus": "0-7"}, "not available"),
        ({"cpuset_cpus": "1-0"}, "Invalid value"),
        ({"cpuset_cpus": "a"}, "Invalid value"),
        ({"cpuset_cpus": "0-99999999999"}, "Invalid value"),
        ({"pids_limit": -2}, "-1 for no limit"),
        ({"blkio_weight": 5}, "10 to 1000"),
        ({"ulimits": (Ulimit(name="files"),)}, "invalid ulimit type"),
        ({"ulimits": (Ulimit(name="core", soft=2, hard=1),)}, "less than or equal"),
    ],
)
def test_an_invalid_limit_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        spec_resources.check(limits(**fields), HOST)


def test_by_default_only_the_number_of_processes_is_limited() -> None:
    found = spec_resources.decide(limits(), HOST)
    assert found.pids == Pids(4096)
    assert (found.memory, found.cpu, found.block_io) == (None, None, None)


def test_swap_defaults_to_the_memory_limit() -> None:
    assert spec_resources.decide(limits(memory=64 * MIB), HOST).memory == Memory(
        limit=64 * MIB, swap=128 * MIB
    )
    assert spec_resources.decide(limits(memory=64 * MIB, memory_swap=-1), HOST).memory == Memory(
        limit=64 * MIB, swap=-1
    )


def test_a_share_of_cpus_is_a_quota_of_the_kernels_period() -> None:
    found = spec_resources.decide(limits(nano_cpus=500_000_000, cpuset_cpus="1"), HOST)
    assert found.cpu == CPU(quota=50_000, period=100_000, cpus="1")


def test_unlimited_processes_are_a_named_wish() -> None:
    assert spec_resources.decide(limits(pids_limit=-1), HOST).pids is None
    assert spec_resources.decide(limits(pids_limit=0), HOST).pids is None


def test_rlimits_have_a_finite_number_of_files_by_default() -> None:
    assert spec_resources.rlimits(limits(), (10, 20)) == (
        Rlimit("RLIMIT_NOFILE", hard=20, soft=10),
    )
    asked = limits(
        ulimits=(Ulimit(name="nofile", soft=1, hard=2), Ulimit(name="core", soft=-1, hard=-1))
    )
    assert spec_resources.rlimits(asked, (10, 20)) == (
        Rlimit("RLIMIT_NOFILE", hard=2, soft=1),
        Rlimit("RLIMIT_CORE", hard=2**64 - 1, soft=2**64 - 1),
    )


def record(**fields: object) -> ContainerRecord:
    body = ContainerCreate(host_config=HostConfig(**fields))  # type: ignore[arg-type]
    return ContainerRecord("a" * 64, "web", 1, body, "sha256:0", resolved_request=resolve(body))


def test_an_update_changes_only_the_limits_that_it_names() -> None:
    old = record(memory=64 * MIB, nano_cpus=10**9, pids_limit=7, privileged=True)
    update = ContainerUpdate(memory=100 * MIB)
    body, resolved, written, *_ = merge_limits(old, update, HOST)
    assert body.host_config.memory == 100 * MIB
    assert body.host_config.nano_cpus == 10**9
    assert resolved == resolve(body) == old.resolved
    assert written is not None
    assert written.memory == Memory(limit=100 * MIB, swap=128 * MIB)
    assert (written.cpu, written.pids) == (None, None)


def test_an_update_above_the_swap_limit_is_refused_until_that_is_raised_too() -> None:
    old = record(memory=64 * MIB)
    with pytest.raises(Conflict, match="memoryswap"):
        merge_limits(old, ContainerUpdate(memory=200 * MIB), HOST)
    update = ContainerUpdate(memory=200 * MIB, memory_swap=-1)
    assert merge_limits(old, update, HOST).body.host_config.memory_swap == -1


def test_an_update_can_lift_the_limit_of_processes() -> None:
    written = merge_limits(record(pids_limit=7), ContainerUpdate(pids_limit=-1), HOST).limits
    assert written is not None
    assert written.pids == Pids(-1)


def test_limits_of_pods_become_those_of_the_spec() -> None:
    pages = {"2MB": 4 * MIB, "1GB": 0}
    asked = PodResources(unified={"memory.high": "1000000"}, hugepage_limits=pages)
    spec_resources.check(limits(), V2, asked)
    found = spec_resources.decide(limits(), V2, asked)
    assert found.unified == {"memory.high": "1000000"}
    assert found.hugepage_limits == (HugepageLimit("2MB", 4 * MIB), HugepageLimit("1GB", 0))


@pytest.mark.parametrize(
    ("host", "unified", "kind", "words"),
    [
        (V1, {"memory.high": "1"}, InvalidRequest, "need cgroup v2, this host has v1: memory.high"),
        (V2, {"memory": "1"}, InvalidRequest, "CONTROLLER.PARAMETER"),
        (V2, {"../memory.high": "1"}, InvalidRequest, "no slashes"),
        (V2, {"cgroup.procs": "1"}, InvalidRequest, "may not be set"),
        (V2, {"memory.high": ""}, InvalidRequest, "no value"),
        (V2, {"memory.high": "1\0"}, InvalidRequest, "may not be set"),
        (V2, {"pids.max": "1"}, Unsupported, "controller 'pids' not available"),
    ],
)
def test_values_that_no_cgroup_file_can_have_are_refused(
    host: HostFacts, unified: dict[str, str], kind: type[JaulaError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        spec_resources.check(limits(), host, PodResources(unified=unified))


@pytest.mark.parametrize("host", [V1, V2])
@pytest.mark.parametrize(("size", "limit"), [("2M", 1), ("", 1), ("2MB", -1)])
def test_limits_of_huge_pages_that_do_not_exist_are_refused(
    size: str, limit: int, host: HostFacts
) -> None:
    update = PodContainerUpdate(hugepage_limits={size: limit})
    with pytest.raises(InvalidRequest, match="huge page"):
        spec_resources.with_pod_limits(PodResources(), update, host)


def test_limits_of_huge_pages_are_left_out_without_their_controller() -> None:
    update = PodContainerUpdate(hugepage_limits={"2MB": 0})
    assert spec_resources.with_pod_limits(PodResources(), update, V1) == PodResources()
    assert spec_resources.with_pod_limits(PodResources(), update, V2).hugepage_limits == {"2MB": 0}


def test_an_update_of_a_pod_adds_its_values_and_changes_the_oom_score() -> None:
    old = merge_limits(
        record(memory=64 * MIB, memory_swap=64 * MIB, oom_score_adj=5),
        PodContainerUpdate(unified={"memory.swap.max": "100", "cpu.weight": "7"}),
        V2,
    )
    assert old.limits is not None
    assert old.limits.unified == {"memory.swap.max": "100", "cpu.weight": "7"}
    assert old.oom_score_adj is None
    before = msgspec.structs.replace(
        record(oom_score_adj=5), body=old.body, resolved_request=old.resolved
    )
    update = PodContainerUpdate(
        memory=80 * MIB, memory_swap=80 * MIB, oom_score_adj=9, hugepage_limits={"2MB": 0}
    )
    new = merge_limits(before, update, V2)
    assert new.limits is not None
    assert new.limits.unified == {"memory.swap.max": "100"}  # again, after that of the memory
    assert new.limits.hugepage_limits == (HugepageLimit("2MB", 0),)
    assert new.oom_score_adj == 9
    assert new.body.host_config.oom_score_adj == 9
    assert new.resolved.pod_resources.unified == {"memory.swap.max": "100", "cpu.weight": "7"}
    assert new.changes_processes


def test_an_update_of_a_pod_without_values_changes_nothing() -> None:
    old = record(memory=64 * MIB, oom_score_adj=5)
    new = merge_limits(old, PodContainerUpdate(), V2)
    assert (new.body, new.resolved, new.limits) == (old.body, old.resolved, None)
    assert not new.changes_processes


def test_an_oom_score_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="range for oom score adj"):
        merge_limits(record(), PodContainerUpdate(oom_score_adj=1001), V2)


@pytest.mark.parametrize(
    ("names", "target", "expected"),
    [
        ({"memory"}, {}, Resources(memory=Memory(limit=-1, swap=-1))),
        (
            {"memory_swap"},
            {"memory": 64 * MIB},
            Resources(memory=Memory(limit=64 * MIB, swap=128 * MIB)),
        ),
        ({"nano_cpus"}, {}, Resources(cpu=CPU(quota=-1, period=spec_resources.PERIOD))),
        (
            {"cpu_quota"},
            {"cpu_shares": 5},
            Resources(cpu=CPU(5, quota=-1, period=spec_resources.PERIOD)),
        ),
        ({"cpu_shares"}, {}, Resources(cpu=CPU(1024))),
        ({"cpuset_cpus"}, {"cpuset_mems": "0"}, Resources(cpu=CPU(cpus="0-1", mems="0"))),
        ({"pids_limit"}, {}, Resources(pids=Pids(4096))),
        ({"blkio_weight"}, {}, Resources()),
    ],
)
def test_a_limit_that_is_not_set_is_reset(
    names: set[str], target: dict[str, object], expected: Resources
) -> None:
    assert spec_resources.reset(Resources(), names, limits(**target), V1) == expected


def test_a_reset_reservation_protects_no_memory() -> None:
    names = {"memory_reservation"}
    assert spec_resources.reset(Resources(), names, limits(), V1) == Resources(
        memory=Memory(reservation=-1)
    )
    assert spec_resources.reset(Resources(), names, limits(), V2) == Resources(
        memory=Memory(), unified={"memory.low": "0"}
    )
