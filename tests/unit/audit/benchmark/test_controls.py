"""Every control, with evidence for each of its outcomes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from jaula.features.audit.benchmark.catalog import CIS
from jaula.features.audit.benchmark.container_state import ContainerProcess, ContainerState, Port
from jaula.features.audit.benchmark.containers import ALLOWED
from jaula.features.audit.benchmark.control import AuditRuleFix, FileFix, Kind, Scope, State
from jaula.features.audit.benchmark.engine import (
    BridgeState,
    EngineProcess,
    EngineSettings,
    EngineState,
    Listener,
)
from jaula.features.audit.benchmark.engine_files import FILES, EngineFiles
from jaula.features.audit.benchmark.file_status import FileStatus
from jaula.features.audit.benchmark.host import (
    RECORDED,
    HostState,
    Layout,
    rules_of_file,
    tmpfiles_text,
)
from jaula.features.audit.benchmark.images import ImageState
from jaula.kernel.kernel_audit import AuditRule
from jaula.kernel.mountinfo import MountInfo

CONTROLS = CIS.controls
BY_ID = {control.id: control for control in CONTROLS}


def mount(target: str) -> MountInfo:
    return MountInfo(1, 0, "8:1", "/", target, frozenset(), (), "ext4", "/dev/sda1", ())


SOCKET = FileStatus("/run/jaula/jaula.sock", 0, 0, 0o600)
LAYOUT = Layout("/var/lib/jaula", "/run/jaula", SOCKET.path, "/run/jaula/cri.sock",
                service_unit="/usr/lib/systemd/system/jaula.service",
                socket_unit="/usr/lib/systemd/system/jaula.socket", package="/usr/lib/jaula",
                interpreter="/usr/bin/python3.13", command="/usr/bin/jaula",
                own_runtime="/usr/bin/jaula-runtime", other_runtime="/usr/bin/runc")  # fmt: skip
RULES = tuple(AuditRule(getattr(LAYOUT, row[3]), "", 10, "jaula", True) for row in RECORDED)
HOST = HostState(LAYOUT, mount("/var/lib/jaula"), SOCKET, rules=RULES)
ENGINE = EngineState(
    info={
        "Driver": "overlay",
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"],
        "LoggingDriver": "journald",
        "LiveRestoreEnabled": True,
        "Swarm": {"LocalNodeState": "inactive"},
        "RegistryConfig": {"InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"]},
    },
    version={"Components": [{"Details": {"Experimental": "false"}}]},
    settings=EngineSettings(default_profile="strict"),
    process=EngineProcess(7, 1000),
    bridge=BridgeState("jaula0", 2, 2),
    tables=frozenset({"jaula0"}),
    image_policy="reject",
)
FILE_STATES = EngineFiles({f.name: (FileStatus(f"/{f.name}", 0, 0, 0o400),) for f in FILES})
IMAGE = ImageState(name="web:1", user="app", health_check=True, steps=("CMD x", "ADD rootfs /"))
CONTAINER = ContainerState(name="web", id="f00", cgroup="/jaula/f00")

ROOT = ContainerProcess(2, "sh", 0, is_exec=True)

# id, changes of the state, the outcome
HOST_CASES: list[tuple[str, dict[str, Any], State]] = [
    ("1.1.1", {}, State.PASS),
    ("1.1.1", {"data_mount": mount("/")}, State.FAIL),
    ("1.1.1", {"data_mount": None}, State.UNKNOWN),
    ("1.1.1", {"root_device": "8:1"}, State.FAIL),  # bound at itself
    ("1.1.2", {}, State.PASS),
    ("1.1.2", {"socket": FileStatus("/s", 0, 5, 0o660), "socket_users": ("bob",)}, State.MANUAL),
    ("1.1.2", {"socket": FileStatus("/s", 0, 5, 0o600), "socket_users": ("bob",)}, State.PASS),
    ("1.1.2", {"socket": FileStatus("/s", 0, 0, 0o666)}, State.FAIL),
    ("1.1.2", {"socket": None}, State.NOT_APPLICABLE),
    ("1.2.1", {}, State.MANUAL),
    ("1.2.1", {"cves": "CVE-2022-0847"}, State.FAIL),
    ("1.2.2", {}, State.MANUAL),
    *((row[0], {}, State.PASS) for row in RECORDED),
    *((row[0], {"rules": ()}, State.FAIL) for row in RECORDED),
    *((row[0], {"rules": None, "rules_error": "no"}, State.UNKNOWN) for row in RECORDED),
    *((row[0], {"rules": None, "rules_supported": False}, State.FAIL) for row in RECORDED),
    *((row[0], {"recording": False}, State.FAIL) for row in RECORDED),
    *((row[0], {"absent": frozenset({getattr(LAYOUT, row[3])})}, State.NOT_APPLICABLE)
      for row in RECORDED),
]  # fmt: skip


def info(**changes: Any) -> dict[str, Any]:
    return {"info": {**ENGINE.info, **changes}}


def listener(answer: str, port: int = 2376) -> dict[str, Any]:
    return {"process": EngineProcess(7, 0, (), (Listener("10.0.0.1", port, answer),))}


ENGINE_CASES: list[tuple[str, dict[str, Any], State]] = [
    ("2.1", {}, State.PASS),
    ("2.1", {"process": EngineProcess(7, 0)}, State.MANUAL),
    ("2.1", {"process": None}, State.UNKNOWN),
    ("2.2", {}, State.PASS),
    ("2.2", {"bridge": BridgeState("jaula0", 2, 1)}, State.FAIL),
    ("2.2", {"bridge": BridgeState("jaula0", 0, 0)}, State.FAIL),
    ("2.2", {"bridge": BridgeState("jaula0", 0, 0, icc=False)}, State.PASS),
    ("2.3", {}, State.PASS),
    ("2.3", info(Debug=True), State.FAIL),
    ("2.4", {}, State.PASS),
    ("2.4", {"tables": frozenset({"other"})}, State.FAIL),
    ("2.4", {"tables": None}, State.UNKNOWN),
    ("2.5", {}, State.PASS),
    ("2.5", info(RegistryConfig={"InsecureRegistryCIDRs": ["10.0.0.0/8"]}), State.FAIL),
    ("2.5", info(RegistryConfig={"IndexConfigs": {"r:5000": {"Secure": False}}}), State.FAIL),
    ("2.6", {}, State.PASS),
    ("2.6", info(Driver="aufs"), State.FAIL),
    ("2.7", {}, State.PASS),
    ("2.7", listener(""), State.PASS),
    ("2.7", listener("plain"), State.FAIL),
    ("2.7", listener("tls"), State.FAIL),
    ("2.7", {"process": None}, State.UNKNOWN),
    ("2.8", {}, State.PASS),
    ("2.8", {"containers": (ContainerState(name="x", nofile=None),)}, State.FAIL),
    ("2.8", {"settings": EngineSettings(pids_limit=-1)}, State.FAIL),
    ("2.8", {"settings": None}, State.UNKNOWN),
    ("2.9", {}, State.PASS),
    ("2.9", info(SecurityOptions=["name=seccomp,profile=builtin"]), State.FAIL),
    ("2.10", {"containers": (CONTAINER,)}, State.PASS),
    ("2.10", {"containers": (ContainerState(name="x", cgroup="/elsewhere/x"),)}, State.FAIL),
    (
        "2.10",
        {"containers": (ContainerState(name="x", cgroup="/e/x", cgroup_parent="/e"),)},
        State.PASS,
    ),
    ("2.10", {"containers": (ContainerState(name="x", cgroup="/jaulax/x"),)}, State.FAIL),
    ("2.10", {"settings": None}, State.UNKNOWN),
    ("2.11", {}, State.PASS),
    ("2.11", info(Driver="devicemapper"), State.FAIL),
    ("2.12", {}, State.PASS),
    ("2.12", {"policy_exists": True}, State.PASS),
    ("2.12", {"settings": None}, State.UNKNOWN),
    ("2.13", {}, State.PASS),
    ("2.13", info(LoggingDriver="json-file"), State.FAIL),
    ("2.14", {}, State.PASS),
    ("2.14", {"settings": EngineSettings()}, State.FAIL),
    ("2.14", {"settings": None}, State.UNKNOWN),
    ("2.15", {}, State.PASS),
    ("2.15", info(LiveRestoreEnabled=False), State.FAIL),
    ("2.16", {}, State.PASS),
    ("2.16", {"process": EngineProcess(7, 0, children=("docker-proxy",))}, State.FAIL),
    ("2.16", {"process": None}, State.UNKNOWN),
    ("2.17", {}, State.PASS),
    ("2.17", info(SecurityOptions=["name=seccomp,profile=unconfined"]), State.FAIL),
    ("2.17", info(SecurityOptions=[]), State.FAIL),
    ("2.18", {}, State.PASS),
    ("2.18", {"version": {"Components": [{"Details": {"Experimental": "true"}}]}}, State.FAIL),
    ("4.2", {}, State.PASS),
    ("4.2", {"image_policy": "accept"}, State.MANUAL),
    ("4.5", {"image_policy": "signed-by"}, State.PASS),
    ("4.5", {"image_policy": "accept"}, State.FAIL),
    ("4.5", {"image_policy": ""}, State.UNKNOWN),
    ("4.12", {}, State.PASS),
    ("4.12", {"image_policy": "accept"}, State.MANUAL),
    ("5.1", {}, State.PASS),
    ("5.1", info(Swarm={"LocalNodeState": "active"}), State.FAIL),
    ("5.1", listener("", 2377), State.FAIL),
    ("5.1", {"process": None}, State.UNKNOWN),
    ("6.1", {"images": 20, "unused_images": 10}, State.PASS),
    ("6.1", {"images": 20, "unused_images": 11}, State.FAIL),
    ("6.2", {"stopped_containers": 25}, State.PASS),
    ("6.2", {"stopped_containers": 26}, State.FAIL),
]

FILE_CASES: list[tuple[str, dict[str, Any], State]] = []
for each in FILES:
    wrong = FileStatus("/x", 1000, 0, 0o777)
    for number in (each.owner_id, each.mode_id):
        FILE_CASES += [
            (number, {}, State.PASS),
            (number, {"files": {}}, State.NOT_APPLICABLE),
            (number, {"files": {each.name: (SOCKET, wrong)}}, State.FAIL),
        ]

IMAGE_CASES: list[tuple[str, dict[str, Any], State]] = [
    ("4.1", {}, State.PASS),
    ("4.1", {"user": ""}, State.FAIL),
    ("4.1", {"user": "0:1000"}, State.FAIL),
    ("4.1", {"user": "root"}, State.FAIL),
    ("4.3", {}, State.MANUAL),
    ("4.4", {}, State.MANUAL),
    ("4.6", {}, State.PASS),
    ("4.6", {"health_check": False}, State.FAIL),
    ("4.7", {}, State.PASS),
    ("4.7", {"steps": ("RUN apt-get -q update",)}, State.FAIL),
    ("4.7", {"steps": ("RUN apk update",)}, State.FAIL),
    ("4.7", {"steps": ("RUN apt-get update && apt-get install -y curl",)}, State.PASS),
    ("4.7", {"steps": ("RUN echo update",)}, State.PASS),
    ("4.8", {}, State.PASS),
    ("4.8", {"set_user_id": ("/bin/su",)}, State.FAIL),
    ("4.8", {"set_user_id": None}, State.UNKNOWN),
    ("4.9", {}, State.PASS),
    ("4.9", {"steps": ("ADD file:1 in /x", "ADD rootfs /")}, State.FAIL),
    ("4.9", {"steps": ("/bin/sh -c #(nop) ADD file:1 in /x", "x")}, State.FAIL),
    ("4.9", {"steps": ("RUN apk add ADD", "x")}, State.PASS),
    ("4.10", {}, State.MANUAL),
    ("4.10", {"environment": ("DB_PASSWORD=x",)}, State.FAIL),
    ("4.10", {"environment": ("DB_PASSWORD_FILE=/run/secrets/db",)}, State.MANUAL),
    ("4.10", {"environment": ("TOKENIZER=fast",)}, State.MANUAL),
    ("4.10", {"steps": ("RUN API_KEY=abc ./get",)}, State.FAIL),
    ("4.10", {"steps": ("RUN echo -----BEGIN RSA PRIVATE KEY-----",)}, State.FAIL),
    ("4.11", {}, State.MANUAL),
    ("4.11", {"steps": ("RUN curl -s https://x.example | sh",)}, State.FAIL),
    ("4.11", {"steps": ("RUN yum install --nogpgcheck x",)}, State.FAIL),
]


def init(**changes: Any) -> dict[str, Any]:
    return {"init": msgspec.structs.replace(CONTAINER.init, **changes)}


CONTAINER_CASES: list[tuple[str, dict[str, Any], State]] = [
    ("4.1", {}, State.PASS),
    ("4.1", init(uid=0), State.FAIL),
    ("5.2", {}, State.NOT_APPLICABLE),
    ("5.2", {"profile": "jaula-default (enforce)"}, State.PASS),
    ("5.2", {"profile": "jaula-default (complain)"}, State.FAIL),
    ("5.2", {"profile": "jaula-enforce (complain)"}, State.FAIL),
    ("5.2", {"profile": "jaula-default//&engine (mixed)"}, State.FAIL),
    ("5.2", {"profile": "jaula-default//&engine (mixed)", "stack_enforces": True}, State.PASS),
    ("5.2", {"profile": "jaula-default (complain)", "stack_enforces": True}, State.FAIL),
    ("5.2", {"profile": "unconfined"}, State.FAIL),
    ("5.3", {}, State.NOT_APPLICABLE),
    ("5.3", {"label": "system_u:system_r:container_t:s0:c1,c2"}, State.PASS),
    ("5.3", {"label": "system_u:system_r:spc_t:s0"}, State.FAIL),
    ("5.3", {"label": "kernel"}, State.FAIL),
    ("5.4", {}, State.PASS),
    ("5.4", init(capabilities=ALLOWED), State.PASS),
    ("5.4", init(capabilities=ALLOWED | 1 << 21), State.FAIL),
    ("5.5", {}, State.PASS),
    ("5.5", init(capabilities=(1 << 41) - 1), State.PASS),
    ("5.5", {**init(capabilities=(1 << 41) - 1), "masked": False}, State.FAIL),
    ("5.5", {"masked": False}, State.PASS),
    ("5.6", {}, State.PASS),
    ("5.6", {"binds": (("/etc", "/x"),)}, State.FAIL),
    ("5.7", {}, State.PASS),
    ("5.7", {"others": (ContainerProcess(2, "x (sshd)", 1),)}, State.FAIL),
    ("5.7", {"others": (ContainerProcess(2, "sshdog", 1),)}, State.PASS),
    ("5.8", {}, State.PASS),
    ("5.8", {"ports": (Port("10.0.0.1", 1023),)}, State.FAIL),
    ("5.8", {"ports": (Port("10.0.0.1", 1024),)}, State.PASS),
    ("5.9", {}, State.PASS),
    ("5.9", {"ports": (Port("10.0.0.1", 8080),)}, State.MANUAL),
    ("5.11", {}, State.PASS),
    ("5.11", {"memory": None}, State.FAIL),
    ("5.12", {}, State.PASS),
    ("5.12", {"cpu": ""}, State.FAIL),
    ("5.13", {}, State.PASS),
    ("5.13", {"read_only": False}, State.FAIL),
    ("5.14", {}, State.PASS),
    ("5.14", {"ports": (Port("::", 8080),)}, State.FAIL),
    ("5.14", {"ports": (Port("10.0.0.1", 8080),)}, State.PASS),
    ("5.15", {}, State.PASS),
    ("5.15", {"restart_policy": "always"}, State.FAIL),
    ("5.15", {"restart_policy": "on-failure", "restarts": 5}, State.PASS),
    ("5.15", {"restart_policy": "on-failure", "restarts": 6}, State.FAIL),
    ("5.15", {"restart_policy": "on-failure", "restarts": 0}, State.FAIL),
    ("5.18", {}, State.PASS),
    ("5.18", {"devices": ("/dev/kvm",)}, State.FAIL),
    ("5.19", {}, State.PASS),
    ("5.19", {"nofile": None}, State.FAIL),
    ("5.19", {"nofile": (1 << 20) + 1}, State.FAIL),
    ("5.20", {}, State.PASS),
    ("5.20", {"shared_mounts": ("/x",)}, State.FAIL),
    ("5.22", {}, State.PASS),
    ("5.22", {"seccomp": 0}, State.FAIL),
    ("5.23", {}, State.PASS),
    ("5.23", {"others": (ContainerProcess(2, "sh", 1, 1 << 21),)}, State.FAIL),
    ("5.24", {}, State.PASS),
    ("5.24", {"others": (ROOT,)}, State.FAIL),
    ("5.24", {"others": (ROOT,), **init(uid=0)}, State.PASS),
    ("5.25", {}, State.PASS),
    ("5.25", {"cgroup": "/elsewhere"}, State.FAIL),
    ("5.25", {"cgroup_parent": "/elsewhere"}, State.MANUAL),
    ("5.26", {}, State.PASS),
    ("5.26", {"no_new_privs": False}, State.FAIL),
    ("5.27", {}, State.PASS),
    ("5.27", {"health": "starting"}, State.PASS),
    ("5.27", {"health": "unhealthy"}, State.FAIL),
    ("5.27", {"health": ""}, State.FAIL),
    ("5.28", {}, State.MANUAL),
    ("5.28", {"newer_image": True}, State.FAIL),
    ("5.29", {}, State.PASS),
    ("5.29", {"pids": None}, State.FAIL),
    ("5.30", {}, State.PASS),
    ("5.30", {"on_default_bridge": True}, State.FAIL),
    ("5.32", {}, State.PASS),
    ("5.32", {"control_sockets": ("/docker.sock",)}, State.FAIL),
    ("5.32", {"engine_socket": "read"}, State.MANUAL),
    *((id, {}, State.PASS) for id in ("5.10", "5.16", "5.17", "5.21", "5.31")),
    *((id, {"host_namespaces": frozenset({kind})}, State.FAIL)
      for id, kind in (("5.10", "net"), ("5.16", "pid"), ("5.17", "ipc"), ("5.21", "uts"),
                       ("5.31", "user"))),
]  # fmt: skip

CASES = [
    *((Kind.HOST, HOST, *case) for case in HOST_CASES),
    *((Kind.ENGINE, ENGINE, *case) for case in ENGINE_CASES),
    *((Kind.ENGINE_FILES, FILE_STATES, *case) for case in FILE_CASES),
    *((Kind.IMAGE, IMAGE, *case) for case in IMAGE_CASES),
    *((Kind.CONTAINER, CONTAINER, *case) for case in CONTAINER_CASES),
]
ALWAYS_MANUAL = {"1.2.2", "4.3", "4.4"}
"""What no evidence decides."""
BY_CONSTRUCTION = {"2.12"}
"""What the engine cannot be without."""


@pytest.mark.parametrize(
    ("kind", "base", "id", "changes", "state"),
    CASES,
    ids=[f"{case[2]}-{number}" for number, case in enumerate(CASES)],
)
def test_a_control_judges_the_evidence(
    kind: Kind, base: Any, id: str, changes: dict[str, Any], state: State
) -> None:
    judgement = BY_ID[id].judges[kind](msgspec.structs.replace(base, **changes))
    assert judgement.state is state, judgement.evidence
    assert judgement.evidence
    if state in (State.FAIL, State.MANUAL):
        assert judgement.remediation, "what to do"


def test_every_control_has_a_case_that_holds_and_one_that_does_not() -> None:
    for control in CONTROLS:
        for kind in control.judges:
            outcomes = {case[4] for case in CASES if case[0] is kind and case[2] == control.id}
            if control.id in ALWAYS_MANUAL:
                assert outcomes == {State.MANUAL}, control.id
                continue
            assert outcomes & {State.PASS, State.MANUAL}, control.id
            if control.id not in BY_CONSTRUCTION:
                assert outcomes & {State.FAIL, State.MANUAL}, control.id
            assert len(outcomes) > 1, control.id


def test_the_catalog_has_the_108_controls_of_sections_1_to_6() -> None:
    ids = [control.id for control in CONTROLS]
    assert len(ids) == len(set(ids)) == 108
    numbers = dict(Counter(control.section for control in CONTROLS))
    assert numbers == {"1": 20, "2": 18, "3": 24, "4": 12, "5": 32, "6": 2}
    assert {control.level for control in CONTROLS} == {1, 2}
    assert len({control.title for control in CONTROLS}) == 108
    scopes = {scope for control in CONTROLS for scope in control.scopes}
    assert scopes == set(Scope)


def test_files_are_repaired_by_the_least_change() -> None:
    files = {"config_file": (FileStatus("/d", 1000, 0, 0o4666),)}
    state = EngineFiles(files)
    assert BY_ID["3.17"].judges[Kind.ENGINE_FILES](state).fixes == (FileFix("/d", uid=0),)
    assert BY_ID["3.18"].judges[Kind.ENGINE_FILES](state).fixes == (FileFix("/d", mode=0o644),)
    any_group = EngineFiles({"socket": (FileStatus("/s", 0, 5, 0o660),)})
    assert BY_ID["3.15"].judges[Kind.ENGINE_FILES](any_group).state is State.PASS


def test_a_rule_for_a_directory_above_records_a_file() -> None:
    above = AuditRule("", "/run", 15, "all", True)
    state = msgspec.structs.replace(HOST, rules=(above,))
    assert BY_ID["1.1.9"].judges[Kind.HOST](state).state is State.PASS
    for weak in (
        msgspec.structs.replace(above, permissions=2),
        msgspec.structs.replace(above, records=False),
        msgspec.structs.replace(above, directory="/ru"),
    ):
        state = msgspec.structs.replace(HOST, rules=(weak,))
        assert BY_ID["1.1.9"].judges[Kind.HOST](state).state is State.FAIL


def test_a_rule_for_a_file_does_not_record_what_is_below_a_directory() -> None:
    """The kernel keeps a rule as one for a file if its path was absent when it was loaded."""
    rule = AuditRule("/run/jaula", "", 15, "jaula", True)
    directories = frozenset({"/run/jaula"})
    state = msgspec.structs.replace(HOST, rules=(rule,), directories=directories)
    assert BY_ID["1.1.4"].judges[Kind.HOST](state).state is State.FAIL
    rule = msgspec.structs.replace(rule, path="", directory="/run/jaula")
    state = msgspec.structs.replace(state, rules=(rule,))
    assert BY_ID["1.1.4"].judges[Kind.HOST](state).state is State.PASS


def test_the_runtime_directory_exists_when_rules_are_loaded() -> None:
    status = FileStatus("/run/jaula", 0, 0, 0o711, is_directory=True)
    text = tmpfiles_text(msgspec.structs.replace(HOST, run_status=status))
    assert text.splitlines()[-1] == "d /run/jaula 0711 0 0 -"
    for path in ("/srv/jaula", "/run/a b"):
        elsewhere = msgspec.structs.replace(status, path=path)
        assert tmpfiles_text(msgspec.structs.replace(HOST, run_status=elsewhere)) == ""
    assert tmpfiles_text(HOST) == ""


def test_the_file_of_rules_leaves_out_what_another_file_records() -> None:
    other = AuditRule("", "/usr/bin", 15, "admin", True)
    absent = frozenset({"/etc/default/jaula", "/etc/sysconfig/jaula"})
    state = msgspec.structs.replace(HOST, rules=(other,), absent=absent)
    fixes = rules_of_file(state)
    assert not [path for path in fixes if path.startswith("/usr/bin/") or path in absent]
    assert fixes["/var/lib/jaula"] == AuditRuleFix("/var/lib/jaula")
    assert fixes["/run/jaula"] == AuditRuleFix("/run/jaula")
    assert fixes["/run/jaula/jaula.sock"] == AuditRuleFix("/run/jaula/jaula.sock", volatile=True)
    own = msgspec.structs.replace(HOST, absent=absent)
    assert set(fixes) < set(rules_of_file(own)), "its own rules stay in the file"
