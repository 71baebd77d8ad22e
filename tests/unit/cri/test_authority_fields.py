"""docs/authority.md has for each field of a request of CRI the key of the policy that decides.

``scripts/document-tables`` writes the fields. For a new one decide there what it asks for, and add
an example here if that is a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaula.engine import relaxations
from jaula.engine.authz import policy_file, request_ceilings
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.relaxations import Relaxation
from jaula.features.kubernetes.cri.container_config import container_request
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.kubernetes.cri.sandbox_config import sandbox_request
from unit.engine.authz.test_request_fields import KEYS

PAGE = Path(__file__).parents[3] / "docs" / "authority.md"
WORDS = {"uids", "log_directory", "runtime_config", "access", "run"}
OTHERS = ("nothing", "not served", "its own ", "their own ", "as `")


def table() -> Iterator[tuple[str, str, str]]:
    """Yield message, field and what it asks for, from the table of the page."""
    section = PAGE.read_text().partition("\n## Fields of a request of CRI\n")[2]
    names: list[str] = []
    for line in section.partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 3 or cells[0] in ("message", "---"):
            continue
        names = re.findall("`([^`]+)`", cells[0]) or names
        for name in names:
            for field in re.findall("`([^`]+)`", cells[1]):
                yield name, field, cells[2]


ASKS = {(message, field): asks for message, field, asks in table()}


def test_the_table_names_keys_of_the_policy() -> None:
    for row, asks in ASKS.items():
        named = set(re.findall("`([^`]+)`", asks)) - WORDS
        assert named <= set(policy_file.KEYS), row
        assert named or asks.startswith((*OTHERS, "`access`")), row


def keys(
    privileges: tuple[relaxations.Privilege, ...], demands: set[request_ceilings.Demand]
) -> set[str]:
    kinds: list[str] = [privilege.kind for privilege in privileges]
    return {KEYS[kind] for kind in (*kinds, *(demand.bound for demand in demands))}


def isolated_pod() -> api_pb2.PodSandboxConfig:
    """Return a pod that asks for nothing, with the handler of a user namespace of its own."""
    return api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name="web", uid="1", namespace="default")
    )


def asked_by_pod(change: Callable[[api_pb2.PodSandboxConfig], object]) -> set[str]:
    """Return the keys that decide about a pod, beyond those of one without fields."""

    def asked(config: api_pb2.PodSandboxConfig) -> tuple[set[Any], set[request_ceilings.Demand]]:
        request = sandbox_request(config, "jaula-userns")
        body = request.body
        demands = set(request_ceilings.of_sandbox(request, body.host_config))
        return set(relaxations.of_sandbox(request, body, resolve(body))), demands

    config = isolated_pod()
    before = asked(config)
    assert not before[0]
    change(config)
    after = asked(config)
    return keys(tuple(after[0] - before[0]), after[1] - before[1])


def asked_by_container(change: Callable[[api_pb2.ContainerConfig], object]) -> set[str]:
    """Return the keys that decide about a container, beyond those of one without fields."""

    def asked(config: api_pb2.ContainerConfig) -> tuple[set[Any], set[request_ceilings.Demand]]:
        body = container_request("sandbox", config).body
        resolved = resolve(body)
        demands = set(request_ceilings.of_request(body.host_config, resolved, 4096))
        return set(relaxations.of_request(body, resolved)), demands

    config = api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name="main"), image=api_pb2.ImageSpec(image="busybox")
    )
    default = api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.RuntimeDefault)
    context(config).seccomp.CopyFrom(default)
    before = asked(config)
    change(config)
    after = asked(config)
    return keys(tuple(after[0] - before[0]), after[1] - before[1])


def test_an_isolated_pod_asks_for_nothing() -> None:
    assert asked_by_pod(lambda config: None) == set()


def context(config: Any) -> Any:
    return config.linux.security_context


def mapped(config: api_pb2.PodSandboxConfig) -> None:
    options = context(config).namespace_options.userns_options
    options.mode = api_pb2.POD
    for rows in (options.uids, options.gids):
        rows.add(container_id=0, host_id=1_900_000_000, length=65536)


def node(field: str) -> Callable[[Any], None]:
    return lambda config: setattr(context(config).namespace_options, field, api_pb2.NODE)


def profile(field: str) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        security = getattr(context(config), field)
        security.profile_type = api_pb2.SecurityProfile.Unconfined

    return change


@pytest.mark.parametrize(
    ("row", "key", "change"),
    [
        (("PodSandboxConfig", "log_directory"), "host-mounts",
         lambda c: setattr(c, "log_directory", "/var/log/pods/x")),
        (("PortMapping", "host_port"), "host-ports",
         lambda c: c.port_mappings.add(host_port=80, container_port=80)),
        (("LinuxPodSandboxConfig", "cgroup_parent"), "cgroup-parents",
         lambda c: setattr(c.linux, "cgroup_parent", "/kubepods")),
        (("NamespaceOption", "network"), "host-namespaces", node("network")),
        (("NamespaceOption", "pid"), "host-namespaces", node("pid")),
        (("NamespaceOption", "ipc"), "host-namespaces", node("ipc")),
        (("UserNamespace", "uids"), "host-namespaces", mapped),
        (("LinuxSandboxSecurityContext", "selinux_options"), "security-options",
         lambda c: setattr(context(c).selinux_options, "type", "spc_t")),
        (("LinuxSandboxSecurityContext", "apparmor"), "security-options", profile("apparmor")),
    ],
)  # fmt: skip
def test_a_field_of_a_pod_asks_for_the_key_of_the_table(
    row: tuple[str, str], key: str, change: Callable[[Any], object]
) -> None:
    assert asked_by_pod(change) == {key}
    assert f"`{key}`" in ASKS[row]


def test_a_pod_in_the_host_s_user_namespace_asks_for_it() -> None:
    request = sandbox_request(isolated_pod(), "")
    asked = relaxations.of_sandbox(request, request.body, resolve(request.body))
    assert [str(privilege) for privilege in asked] == ["host-namespace=user"]
    assert "`host-namespaces`" in ASKS["UserNamespace", "mode"]


def mount(**fields: Any) -> Callable[[api_pb2.ContainerConfig], None]:
    return lambda config: config.mounts.add(container_path="/x", **fields) and None


def privileged(change: Callable[[api_pb2.ContainerConfig], object]) -> Callable[[Any], object]:
    return lambda config: (setattr(context(config), "privileged", True), change(config))


def no_paths(field: str) -> Callable[[Any], object]:
    return lambda config: getattr(context(config), field).append("/proc/kcore")


@pytest.mark.parametrize(
    ("row", "asked", "change"),
    [
        (("Mount", "host_path"), {"host-mounts"}, mount(host_path="/etc")),
        (("Mount", "propagation"), {"host-mounts", "privileged", "security-options"},
         privileged(mount(host_path="/etc", propagation=api_pb2.PROPAGATION_BIDIRECTIONAL))),
        (("Mount", "image"), set(), mount(image=api_pb2.ImageSpec(image="busybox"), readonly=True)),
        (("Device", "host_path"), {"devices"},
         lambda c: c.devices.add(host_path="/dev/x", container_path="/dev/x", permissions="r")),
        (("CDIDevice", "name"), {"devices"}, lambda c: c.CDI_devices.add(name="v/c=d")),
        (("LinuxContainerSecurityContext", "privileged"), {"privileged", "security-options"},
         lambda c: setattr(context(c), "privileged", True)),
        (("Capability", "add_capabilities"), {"capabilities"},
         lambda c: context(c).capabilities.add_capabilities.append("SYS_ADMIN")),
        (("Capability", "drop_capabilities"), set(),
         lambda c: context(c).capabilities.drop_capabilities.append("ALL")),
        (("LinuxContainerSecurityContext", "seccomp"), {"security-options"}, profile("seccomp")),
        (("LinuxContainerSecurityContext", "apparmor"), {"security-options"}, profile("apparmor")),
        (("LinuxContainerSecurityContext", "selinux_options"), {"security-options"},
         lambda c: setattr(context(c).selinux_options, "level", "s0:c1,c2")),
        (("LinuxContainerResources", "memory_limit_in_bytes"), {"max-memory"},
         lambda c: setattr(c.linux.resources, "memory_limit_in_bytes", 1 << 30)),
        (("LinuxContainerResources", "oom_score_adj"), {"oom-score-adj"},
         lambda c: setattr(c.linux.resources, "oom_score_adj", -5)),
        (("LinuxContainerResources", "cpu_shares"), set(),
         lambda c: setattr(c.linux.resources, "cpu_shares", 512)),
        (("LinuxContainerSecurityContext", "run_as_user"), set(),
         lambda c: setattr(context(c).run_as_user, "value", 0)),
    ],
)  # fmt: skip
def test_a_field_of_a_container_asks_for_the_keys_of_the_table(
    row: tuple[str, str], asked: set[str], change: Callable[[Any], object]
) -> None:
    assert asked_by_container(change) == asked
    named = set(re.findall("`([^`]+)`", ASKS[row])) & set(policy_file.KEYS)
    assert named <= asked
    assert named or ASKS[row] == "nothing"


@pytest.mark.parametrize("field", ["masked_paths", "readonly_paths"])
def test_a_short_list_of_paths_asks_for_its_option(field: str) -> None:
    config = api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name="main"), image=api_pb2.ImageSpec(image="busybox")
    )
    no_paths(field)(config)
    body = container_request("sandbox", config).body
    assert body.host_config.masked_paths == (("/proc/kcore",) if field == "masked_paths" else None)
    kinds = {privilege.kind for privilege in relaxations.of_request(body, resolve(body))}
    assert Relaxation.SECURITY_OPTION in kinds
    assert "`security-options`" in ASKS["LinuxContainerSecurityContext", field]
