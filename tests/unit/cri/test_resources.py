"""LinuxContainerResources of CRI as limits of the engine, and back."""

from __future__ import annotations

import msgspec
import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.engine.oci_spec.spec_resources import with_pod_limits
from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cri import cri_resources
from jaula.features.kubernetes.cri.container_config import container_request
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.kubernetes.cri.sandbox_config import sandbox_request
from jaula.spec.pod import PodContainerUpdate, PodLimits
from jaula.state.container_records import ContainerRecord

MIB = 1 << 20
LIMITS = api_pb2.LinuxContainerResources(
    cpu_period=50_000,
    cpu_quota=25_000,
    cpu_shares=512,
    memory_limit_in_bytes=64 * MIB,
    memory_swap_limit_in_bytes=-1,
    oom_score_adj=900,
    cpuset_cpus="0-1",
    cpuset_mems="0",
    hugepage_limits=[
        api_pb2.HugepageLimit(page_size="2MB", limit=4 * MIB),
        api_pb2.HugepageLimit(page_size="1GB", limit=0),
    ],
    unified={"memory.high": "60000000"},
)
HUGETLB = HostFacts(controllers=frozenset({"memory", "hugetlb"}))


def container(limits: api_pb2.LinuxContainerResources) -> api_pb2.ContainerConfig:
    return api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name="main"),
        image=api_pb2.ImageSpec(image="app"),
        linux=api_pb2.LinuxContainerConfig(resources=limits),
    )


def test_the_limits_of_a_creation_are_those_that_the_status_reports() -> None:
    request = container_request("s", container(LIMITS))
    assert request.body.host_config.pids_limit == -1
    resolved = resolve(request.body)
    limits = with_pod_limits(resolved.pod_resources, request, HUGETLB)
    resolved = msgspec.structs.replace(resolved, pod_resources=limits)
    record = ContainerRecord("c", "main", 1, request.body, "sha256:0", resolved_request=resolved)
    assert cri_resources.reported(record) == LIMITS


def test_an_update_has_every_limit() -> None:
    assert cri_resources.container_update(LIMITS) == PodContainerUpdate(
        cpu_period=50_000,
        cpu_quota=25_000,
        cpu_shares=512,
        memory=64 * MIB,
        memory_swap=-1,
        cpuset_cpus="0-1",
        cpuset_mems="0",
        oom_score_adj=900,
        hugepage_limits={"2MB": 4 * MIB, "1GB": 0},
        unified={"memory.high": "60000000"},
    )


def test_an_update_without_values_leaves_every_limit() -> None:
    assert cri_resources.container_update(api_pb2.LinuxContainerResources()) == PodContainerUpdate()


@pytest.mark.parametrize(("memory", "swap", "sum"), [(0, 0, 0), (5, 0, 5), (5, 8, 8), (5, -1, -1)])
def test_swap_is_a_sum_and_absent_without_a_limit_of_its_own(
    memory: int, swap: int, sum: int
) -> None:
    limits = cri_resources.container_limits(
        api_pb2.LinuxContainerResources(
            memory_limit_in_bytes=memory, memory_swap_limit_in_bytes=swap
        )
    )
    assert (limits["memory"], limits["memory_swap"]) == (memory, sum)


def test_a_page_size_has_one_limit() -> None:
    page = api_pb2.HugepageLimit(page_size="2MB", limit=1)
    twice = api_pb2.LinuxContainerResources(hugepage_limits=[page, page])
    with pytest.raises(InvalidRequest, match="more than one limit"):
        container_request("s", container(twice))
    with pytest.raises(InvalidRequest, match="more than one limit"):
        cri_resources.container_update(twice)


def test_the_limits_of_a_pod_are_recorded_and_do_not_limit_the_sandbox() -> None:
    config = api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name="web", uid="1", namespace="default"),
        linux=api_pb2.LinuxPodSandboxConfig(
            resources=LIMITS, overhead=api_pb2.LinuxContainerResources(memory_limit_in_bytes=MIB)
        ),
    )
    request = sandbox_request(config, "")
    assert request.resources == PodLimits(
        cpu_period=50_000,
        cpu_quota=25_000,
        cpu_shares=512,
        cpuset_cpus="0-1",
        cpuset_mems="0",
        memory=64 * MIB,
        memory_swap=-1,
        oom_score_adj=900,
        hugepage_limits={"2MB": 4 * MIB, "1GB": 0},
        unified={"memory.high": "60000000"},
    )
    assert request.overhead == PodLimits(memory=MIB)
    assert (request.body.host_config.memory, request.body.host_config.cpu_quota) == (0, 0)


def test_a_field_that_is_not_sent_is_not_an_empty_one() -> None:
    update = api_pb2.UpdatePodSandboxResourcesRequest(resources=api_pb2.LinuxContainerResources())
    assert cri_resources.pod_limits(update, "resources") == PodLimits()
    assert cri_resources.pod_limits(update, "overhead") is None
