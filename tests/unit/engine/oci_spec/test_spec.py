"""The whole spec of a container: golden documents for the default and for each relaxation."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.oci_spec import security_opt, start_spec
from jaula.engine.oci_spec.inputs import HostFacts, SpecInputs
from jaula.engine.userns.id_ranges import IdRange, mappings
from jaula.errors import InvalidRequest
from jaula.security.lsm import selinux_choice
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.decode import decode
from jaula.spec.runtime_spec import Spec, encode
from jaula.state.container_records import MountRecord, ResolvedRequest

GOLDEN = Path(__file__).parent / "golden"
HOST = HostFacts(online_cpus=frozenset({0, 1}), total_memory=1 << 33, kernel="6.12.0")
IDS = mappings(IdRange(1_000_000_000))


def request(**host: object) -> ResolvedRequest:
    return resolve(ContainerCreate(host_config=HostConfig(**host)))  # type: ignore[arg-type]


def spec(*, facts: SpecInputs | None = None, **host: object) -> Spec:
    body = ContainerCreate(
        image="busybox",
        cmd=("sh", "-c", "true"),
        env=("A=b",),
        host_config=HostConfig(**host),  # type: ignore[arg-type]
    )
    resolved = resolve(body)
    user = resolved.namespaces.user
    found = facts or SpecInputs(
        container_id="c" * 64,
        cgroup_path="/jaula/" + "c" * 64,
        hostname="cccccccccccc",
        host=HOST,
        mappings=() if user.host else IDS,
        id_mapped=not user.host,
        files={"/etc/hosts": "/engine/hosts"},
        mounts=(MountRecord("bind", "/m", source="/s", options=("rbind", "rprivate")),),
    )
    return start_spec.build(body, resolved, found, security_opt.decide(resolved, HOST))


def readable(document: Spec) -> str:
    """As JSON; the long list of system calls is another test's matter."""
    plain = json.loads(encode(document))
    if "seccomp" in plain["linux"]:
        plain["linux"]["seccomp"] = plain["linux"]["seccomp"]["defaultAction"]
    return json.dumps(plain, indent=1, sort_keys=True) + "\n"


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("default", {}),
        ("limited", {"memory": 64 << 20, "nano_cpus": 500_000_000, "pids_limit": 9}),
        ("privileged", {"privileged": True}),
        ("host-user", {"userns_mode": "host"}),
        ("host-network", {"network_mode": "host"}),
        ("host-pid", {"pid_mode": "host"}),
        ("host-ipc", {"ipc_mode": "host"}),
        ("host-cgroup", {"cgroupns_mode": "host"}),
    ],
)
def test_the_spec_is_the_one_on_record(name: str, host: dict[str, object]) -> None:
    made = readable(spec(**host))
    path = GOLDEN / f"{name}.json"
    assert path.exists(), f"{path} is missing; it would hold:\n{made}"
    assert made == path.read_text()


def test_the_default_spec_is_confined() -> None:
    made = spec()
    assert made.linux is not None
    assert made.process is not None
    assert made.process.capabilities is not None
    assert len(made.process.capabilities.bounding) == 14
    assert made.process.capabilities.ambient == ()
    assert made.process.capabilities.inheritable == ()
    assert made.linux.seccomp is not None
    assert made.linux.seccomp.default_action == "SCMP_ACT_ERRNO"
    assert {entry.type for entry in made.linux.namespaces} >= {"user", "cgroup", "pid", "network"}
    assert made.linux.resources is not None
    assert made.linux.resources.devices[0].allow is False
    assert made.linux.masked_paths
    assert made.linux.readonly_paths


@pytest.mark.parametrize(
    "host",
    [
        {"network_mode": "host"},
        {"pid_mode": "host"},
        {"cgroupns_mode": "host"},
    ],
)
def test_trees_of_the_host_are_bound_and_never_id_mapped(host: dict[str, object]) -> None:
    bound = [m for m in spec(**host).mounts if m.source in ("/proc", "/sys", "/sys/fs/cgroup")]
    assert bound
    for mount in bound:
        assert "idmap" not in mount.options
        assert mount.source == "/proc" or "rro" in mount.options


def test_mounts_are_ordered_parents_first() -> None:
    facts = SpecInputs(
        container_id="c",
        cgroup_path="/c",
        hostname="h",
        mounts=(
            MountRecord("bind", "/a/b/c", source="/1", options=("rbind",)),
            MountRecord("bind", "/a", source="/2", options=("rbind",)),
        ),
    )
    places = [m.destination for m in spec(facts=facts).mounts]
    assert places.index("/a") < places.index("/a/b/c")


def test_a_mount_of_the_users_replaces_the_standard_one() -> None:
    shm = MountRecord("bind", "/dev/shm", source="/s", options=("rbind",))
    facts = SpecInputs(container_id="c", cgroup_path="/c", hostname="h", mounts=(shm,))
    found = [m for m in spec(facts=facts).mounts if m.destination == "/dev/shm"]
    assert [m.source for m in found] == ["/s"]


def test_host_devices_come_only_without_a_user_namespace_of_its_own() -> None:
    facts = SpecInputs(container_id="c", cgroup_path="/c", hostname="h", devices=("/dev/null",))
    own = spec(facts=facts, privileged=True).linux
    shared = spec(facts=facts, privileged=True, userns_mode="host").linux
    assert own is not None and own.resources is not None
    assert shared is not None and shared.resources is not None
    assert own.resources.devices[0].allow is False
    assert [rule.allow for rule in shared.resources.devices] == [True]


def test_in_the_hosts_userns_only_the_engines_capabilities_are_granted() -> None:
    limited = msgspec.structs.replace(HOST, capabilities=0b1)
    everything = security_opt.decide(request(privileged=True, userns_mode="host"), limited)
    assert everything.capabilities.bounding == ("CAP_CHOWN",)
    with pytest.raises(InvalidRequest):
        security_opt.decide(request(cap_add=("SYS_TIME",), userns_mode="host"), limited)


@pytest.mark.parametrize(
    ("options", "check"),
    [
        (("no-new-privileges",), lambda c: c.no_new_privileges),
        (("no-new-privileges:true",), lambda c: c.no_new_privileges),
        (("no-new-privileges=false",), lambda c: not c.no_new_privileges),
        (("seccomp=unconfined",), lambda c: c.seccomp is None),
        (("seccomp=builtin",), lambda c: c.seccomp is not None),
        (("systempaths=unconfined",), lambda c: c.masked == () and c.readonly == ()),
        (("label=disable",), lambda c: c.label.options == ("disable",)),
        (("label:type:web_t", "label=level:s0"), lambda c: len(c.label.options) == 2),
        (("apparmor=unconfined",), lambda c: c.apparmor.options == ("unconfined",)),
    ],
)
def test_each_security_option_does_its_one_thing(options: tuple[str, ...], check) -> None:  # type: ignore[no-untyped-def]
    assert check(security_opt.decide(request(security_opt=options), HOST))


@pytest.mark.parametrize(
    "option",
    ["", "seccomp", "seccomp=", "nonsense=1", "no-new-privileges=maybe", "seccomp={", "apparmor=x"],
)
def test_an_invalid_security_option_is_refused(option: str) -> None:
    with pytest.raises(InvalidRequest):
        security_opt.decide(request(security_opt=(option,)), HOST)


SELINUX = msgspec.structs.replace(HOST, selinux=True, selinux_spc=True)


def labels(*options: str, **host: object) -> selinux_choice.Labels:
    return security_opt.selinux_labels(request(security_opt=options, **host), SELINUX, "s0:c1,c2")


def test_with_selinux_a_container_gets_a_type_and_categories() -> None:
    assert labels().process == "system_u:system_r:container_t:s0:c1,c2"
    assert labels().mount == "system_u:object_r:container_file_t:s0:c1,c2"
    assert labels("label=type:web_t").process == "system_u:system_r:web_t:s0:c1,c2"
    assert labels("label=level:s0:c7,c9").mount.endswith(":s0:c7,c9")
    assert security_opt.selinux_labels(request(), HOST, "") == ("", "")


@pytest.mark.parametrize(
    "host", [{"privileged": True}, {"pid_mode": "host"}, {"ipc_mode": "host"}, {}]
)
def test_the_reported_labels_are_those_of_the_spec(host: dict[str, object]) -> None:
    facts = SpecInputs(
        container_id="c", cgroup_path="/c", hostname="c", host=SELINUX, level="s0:c1,c2"
    )
    found = spec(facts=facts, **host)
    assert found.process is not None
    assert found.linux is not None
    told = labels(**host)
    assert (found.process.selinux_label, found.linux.mount_label) == told
    assert ("spc_t" in told.process) == bool(host)


def test_with_apparmor_a_container_gets_the_profile_that_is_loaded() -> None:
    name = "jaula-default-0123456789ab"
    profiles = {"apparmor_profiles": {name: ""}, "apparmor_default": name}
    loaded = msgspec.structs.replace(HOST, apparmor=True, **profiles)
    facts = SpecInputs(container_id="c", cgroup_path="/c", hostname="c", host=loaded)
    found = spec(facts=facts)
    assert found.process is not None
    assert found.process.apparmor_profile == name
    assert security_opt.apparmor_profile_name(request(), loaded) == "jaula-default"
    assert security_opt.apparmor_profile_name(request(privileged=True), loaded) == "unconfined"
    with pytest.raises(InvalidRequest, match="is not loaded"):
        security_opt.decide(request(security_opt=("apparmor=other",)), loaded)


@pytest.mark.parametrize("rule", ["c 1:3 rwm", "b *:* r", "a 7:* m"])
def test_a_device_rule_is_read(rule: str) -> None:
    assert start_spec.cgroup_rule(rule).allow


@pytest.mark.parametrize("rule", ["", "c", "c 1:3", "x 1:3 r", "c 1 r", "c 1:3 x", "c -1:3 r"])
def test_an_invalid_device_rule_is_refused(rule: str) -> None:
    with pytest.raises(InvalidRequest):
        start_spec.cgroup_rule(rule)


def test_host_directories_are_opened_in_the_host_s_namespace_if_its_mounts_are_private() -> None:
    mounts = (
        MountRecord("bind", "/host", source="/s"),
        MountRecord("bind", "/secret", source="/run/s", mapped=True),
        MountRecord("volume", "/volume", source="/v"),
        MountRecord("tmpfs", "/tmp"),
    )
    assert start_spec.host_binds(mounts, HOST) == ()
    facts = msgspec.structs.replace(HOST, private_mounts=True)
    assert start_spec.host_binds(mounts, facts) == ("/host",)
    inputs = SpecInputs("c", "/c", "c", host=facts, mounts=mounts)
    assert spec(facts=inputs).annotations["io.jaula.host-binds"] == "/host"


@pytest.mark.parametrize(("text", "mask"), [("", None), ("0", 0), ("0022", 0o22), ("777", 0o777)])
def test_the_umask_of_a_request_is_that_of_the_program(text: str, mask: int | None) -> None:
    body = decode(f'{{"Image": "x", "Cmd": ["a"], "Umask": "{text}"}}'.encode(), ContainerCreate)
    resolved = resolve(body)
    start_spec.check(body, resolved)
    inputs = SpecInputs("c" * 64, "/jaula/c", "c", HOST, mappings=IDS)
    built = start_spec.build(body, resolved, inputs, security_opt.decide(resolved, HOST))
    assert built.process is not None
    assert built.process.user.umask == mask


@pytest.mark.parametrize("text", ["8", "1000", "00022", "-1", "0o22", " 22", "2 2", "\u0660", "_1"])
def test_a_umask_that_is_not_octal_is_refused(text: str) -> None:
    document = json.dumps({"Image": "x", "Cmd": ["a"], "Umask": text})
    body = decode(document.encode(), ContainerCreate)
    with pytest.raises(InvalidRequest, match="invalid umask"):
        start_spec.check(body, resolve(body))
