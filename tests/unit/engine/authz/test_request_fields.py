"""docs/authority.md has for each field of a request the key of the policy that decides about it.

``scripts/document-tables`` writes the fields. For a new one decide there what it asks for, and add
an example here if that is a key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaula.engine import relaxations
from jaula.engine.authz import policy_file, request_ceilings
from jaula.engine.authz.request_ceilings import Bound, Ceilings
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.relaxations import Relaxation
from jaula.spec import decode
from jaula.spec.api_documents import ContainerCreate, ContainerUpdate, ExecCreate, VolumeCreate
from jaula.spec.api_networks import NetworkCreate

PAGE = Path(__file__).parents[4] / "docs" / "authority.md"
KEYS: dict[str, str] = {
    Relaxation.HOST_MOUNT: "host-mounts",
    Relaxation.HOST_NAMESPACE: "host-namespaces",
    Relaxation.DEVICE: "devices",
    Relaxation.CAPABILITY: "capabilities",
    Relaxation.SECURITY_OPTION: "security-options",
    Relaxation.CGROUP_PARENT: "cgroup-parents",
    Relaxation.ANNOTATION: "annotations",
    Relaxation.NETWORK_OPTION: "network-options",
    Relaxation.LOG_ADDRESS: "log-addresses",
    Relaxation.CHECKPOINT_DIRECTORY: "checkpoint-directories",
    Relaxation.OTHER_CONTAINERS: "others",
    Relaxation.ENGINE_SOCKET: policy_file.CONTAINERS,
    Relaxation.PRIVILEGED: "privileged",
    Relaxation.OOM_SCORE: "oom-score-adj",
    Bound.MEMORY: "max-memory",
    Bound.MEMORY_SWAP: "max-memory",
    Bound.PIDS: "max-pids",
    Bound.SHM_SIZE: "max-shm-size",
    Bound.ULIMIT: "ulimits",
    Bound.OOM_KILL_DISABLE: "oom-kill-disable",
    Bound.HOST_PORT: "host-ports",
}


def table() -> Iterator[tuple[str, list[str], str]]:
    """Yield document, fields and what they ask for, from the table of the page."""
    section = PAGE.read_text().partition("\n## Fields of a request\n")[2].partition("\n## ")[0]
    document = ""
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 3 or cells[0] in ("document", "---"):
            continue
        document = cells[0].strip("`") or document
        yield document, re.findall("`([^`]+)`", cells[1]), cells[2]


def test_the_table_names_keys_of_the_policy() -> None:
    words = {"z", "Z", "shared", "rshared", "host", "container:", "device", "PublishAllPorts"}
    for document, fields, asks in table():
        named = set(re.findall("`([^`]+)`", asks)) - words - {"Mounts"}
        assert named <= {*policy_file.KEYS, policy_file.CONTAINERS}, (document, fields)
        assert named or asks.startswith(("nothing", "their own", "what ", "as ")), (document, asks)


def test_every_kind_of_privilege_has_a_key() -> None:
    assert set(KEYS) == {*Relaxation, *Bound}
    assert set(KEYS.values()) <= {*policy_file.KEYS, policy_file.CONTAINERS}


def asked_by(document: dict[str, Any]) -> set[str]:
    """Return the keys that decide about a container, beyond those of an empty request."""
    body = decode.decode(json.dumps(document).encode(), ContainerCreate)
    resolved = resolve(body)
    kinds: list[str] = [privilege.kind for privilege in relaxations.of_request(body, resolved)]
    empty = ContainerCreate()
    plain = set(request_ceilings.of_request(empty.host_config, resolve(empty), 4096))
    asked = set(request_ceilings.of_request(body.host_config, resolved, 4096))
    kinds += [demand.bound for demand in asked - plain]
    return {KEYS[kind] for kind in kinds}


@pytest.mark.parametrize(
    ("key", "host_config"),
    [
        ("host-mounts", {"Binds": ["/a:/b"]}),
        ("host-mounts", {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b"}]}),
        (policy_file.CONTAINERS, {"Mounts": [{"Type": "engine-socket"}]}),
        ("others", {"VolumesFrom": ["x"]}),
        ("log-addresses", {"LogConfig": {"Config": {"syslog-address": "unix:///x"}}}),
        ("host-mounts", {"LogConfig": {"Config": {"syslog-tls-cert": "/x"}}}),
        *(("host-namespaces", {f"{name}Mode": "host"}) for name in ("Network", "Ipc", "Pid")),
        *(("host-namespaces", {f"{name}Mode": "host"}) for name in ("UTS", "Userns", "Cgroupns")),
        *(("others", {f"{name}Mode": "container:x"}) for name in ("Network", "Ipc", "Pid")),
        ("others", {"Links": ["x:y"]}),
        ("host-ports", {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}),
        ("annotations", {"Annotations": {"org.systemd.property.X": "1"}}),
        ("capabilities", {"CapAdd": ["SYS_ADMIN"]}),
        ("privileged", {"Privileged": True}),
        ("security-options", {"SecurityOpt": ["landlock=off"]}),
        ("security-options", {"MaskedPaths": []}),
        ("security-options", {"ReadonlyPaths": []}),
        ("oom-score-adj", {"OomScoreAdj": -1}),
        ("max-shm-size", {"ShmSize": 1}),
        ("max-memory", {"Memory": 1 << 30}),
        ("max-memory", {"MemorySwap": -1}),
        ("max-pids", {"PidsLimit": -1}),
        ("ulimits", {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}]}),
        ("oom-kill-disable", {"OomKillDisable": True}),
        ("cgroup-parents", {"CgroupParent": "/x"}),
        ("devices", {"Devices": [{"PathOnHost": "/dev/x"}]}),
        ("devices", {"DeviceCgroupRules": ["c 1:1 r"]}),
        ("devices", {"DeviceRequests": [{"Driver": "x"}]}),
    ],
)
def test_a_field_asks_for_the_key_of_the_table(key: str, host_config: dict[str, Any]) -> None:
    assert asked_by({"HostConfig": host_config}) == {key}
    (field,) = host_config
    for document in ("HostConfig", "Resources"):
        for name, fields, asks in table():
            if name == document and field in fields:
                assert f"`{key}`" in asks


def test_fields_of_other_requests_ask_for_the_key_of_the_table() -> None:
    def keys(privileges: tuple[relaxations.Privilege, ...]) -> set[str]:
        return {KEYS[privilege.kind] for privilege in privileges}

    bind = {"type": "none", "device": "/etc", "o": "bind"}
    assert keys(relaxations.of_volume(VolumeCreate(driver_opts=bind).driver_opts)) == {"devices"}
    assert keys(relaxations.of_exec(ExecCreate(privileged=True))) == {"privileged"}
    assert keys(relaxations.of_update(ContainerUpdate(cgroup_parent="/x"))) == {"cgroup-parents"}
    assert keys(relaxations.of_network(NetworkCreate(options={"a": "b"}))) == {"network-options"}
    exposed = {"ExposedPorts": {"80/tcp": {}}, "HostConfig": {"PublishAllPorts": True}}
    assert asked_by(exposed) == {"host-ports"}


def test_a_request_without_fields_is_within_the_ceilings_of_every_rule() -> None:
    assert asked_by({}) == set()
    body = ContainerCreate()
    for demand in request_ceilings.of_request(body.host_config, resolve(body), 4096):
        assert Ceilings().allow(demand)
