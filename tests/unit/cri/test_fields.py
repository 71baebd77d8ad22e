"""Each field of PodSandboxConfig and ContainerConfig: served, refused, or ignored with a reason.

A field of a newer ``api.proto`` that is not in the tables fails the first test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor

from jaula.errors import InvalidRequest, JaulaError, Unsupported
from jaula.features.kubernetes.cri.container_config import container_request
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.kubernetes.cri.sandbox_config import sandbox_request
from jaula.spec.pod import PodContainerRequest, PodIds, PodSandboxRequest

ELSEWHERE = ("LinuxContainerResources", "WindowsPodSandboxConfig", "WindowsContainerConfig")
"""Messages whose fields are not listed here: limits have tests of their own."""


@dataclass(frozen=True)
class Served:
    """A field in text format that gives ``expected`` for ``get`` of the request."""

    text: str
    get: Callable[[Any], object]
    expected: object


@dataclass(frozen=True)
class Refused:
    """A field in text format that gives an error with ``message``."""

    text: str
    message: str


@dataclass(frozen=True)
class Ignored:
    """A field in text format that changes nothing, for a reason."""

    text: str
    reason: str


Entry = Served | Refused | Ignored


def host(name: str) -> Callable[[Any], object]:
    return lambda request: getattr(request.body.host_config, name)


def body(name: str) -> Callable[[Any], object]:
    return lambda request: getattr(request.body, name)


def member(name: str) -> Callable[[Any], object]:
    return lambda request: getattr(request, name)


def metadata(name: str) -> Callable[[Any], object]:
    return lambda request: getattr(request.metadata, name)


def port(name: str) -> Callable[[Any], object]:
    return lambda request: getattr(request.ports[0], name)


def mount(name: str) -> Callable[[Any], object]:
    return lambda request: getattr(request.body.host_config.mounts[0], name)


def bind(name: str) -> Callable[[Any], object]:
    return lambda request: getattr(request.body.host_config.mounts[0].bind_options, name)


def pod_mount(name: str) -> Callable[[Any], object]:
    return lambda request: getattr(request.mounts[0], name)


def device(name: str) -> Callable[[Any], object]:
    return lambda request: getattr(request.body.host_config.devices[0], name)


def inside(path: str, text: str) -> str:
    for name in reversed(path.split(".")):
        text = f"{name} {{ {text} }}"
    return text


_PAUSE = "the only process of a sandbox is pause, without capabilities and with the default filter"
_CONTEXT = "linux.security_context"
_USERNS = f"{_CONTEXT}.namespace_options.userns_options"


def context(text: str) -> str:
    return inside(_CONTEXT, text)


def ids(uids: str = "0 131072 65536", gids: str = "0 131072 65536", mode: str = "POD") -> str:
    rows = ""
    for name, row in (("uids", uids), ("gids", gids)):
        container_id, host_id, length = row.split()
        rows += f" {name} {{ container_id: {container_id} host_id: {host_id} length: {length} }}"
    return inside(_USERNS, f"mode: {mode}{rows}")


ONE_MAP = "needs one mapping"
SANDBOX: dict[str, Entry] = {
    "metadata.name": Served('metadata { name: "other" }', metadata("name"), "other"),
    "metadata.uid": Served('metadata { uid: "other" }', metadata("uid"), "other"),
    "metadata.namespace": Served('metadata { namespace: "other" }', metadata("namespace"), "other"),
    "metadata.attempt": Served("metadata { attempt: 7 }", metadata("attempt"), 7),
    "hostname": Served('hostname: "web-0"', body("hostname"), "web-0"),
    "log_directory": Served('log_directory: "/logs"', member("log_directory"), "/logs"),
    "dns_config.servers": Served(
        'dns_config { servers: "192.0.2.1" }', host("dns"), ("192.0.2.1",)
    ),
    "dns_config.searches": Served('dns_config { searches: "a.b" }', host("dns_search"), ("a.b",)),
    "dns_config.options": Served(
        'dns_config { options: "ndots:5" }', host("dns_options"), ("ndots:5",)
    ),
    "port_mappings.protocol": Served(
        "port_mappings { host_port: 1 protocol: UDP }", port("protocol"), "udp"
    ),
    "port_mappings.container_port": Served(
        "port_mappings { host_port: 1 container_port: 2 }", port("container_port"), 2
    ),
    "port_mappings.host_port": Served("port_mappings { host_port: 1 }", port("host_port"), 1),
    "port_mappings.host_ip": Served(
        'port_mappings { host_port: 1 host_ip: "192.0.2.1" }', port("host_ip"), "192.0.2.1"
    ),
    "labels": Served('labels { key: "k" value: "v" }', member("labels"), {"k": "v"}),
    "annotations": Served('annotations { key: "k" value: "v" }', member("annotations"), {"k": "v"}),
    "linux.cgroup_parent": Served(
        'linux { cgroup_parent: "/pods" }', host("cgroup_parent"), "/pods"
    ),
    "linux.sysctls": Served(
        'linux { sysctls { key: "net.a" value: "1" } }', host("sysctls"), {"net.a": "1"}
    ),
    f"{_CONTEXT}.namespace_options.network": Served(
        context("namespace_options { network: NODE }"), host("network_mode"), "host"
    ),
    f"{_CONTEXT}.namespace_options.pid": Served(
        context("namespace_options { pid: NODE }"), host("pid_mode"), "host"
    ),
    f"{_CONTEXT}.namespace_options.ipc": Served(
        context("namespace_options { ipc: NODE }"), host("ipc_mode"), "host"
    ),
    f"{_CONTEXT}.namespace_options.target_id": Refused(
        context('namespace_options { pid: TARGET target_id: "x" }'), "no target"
    ),
    f"{_USERNS}.mode": Served(ids(), host("userns_mode"), ""),
    f"{_USERNS}.uids.host_id": Served(ids(), member("ids"), PodIds(131072, 65536)),
    f"{_USERNS}.uids.container_id": Refused(ids("1 131072 65536", "1 131072 65536"), ONE_MAP),
    f"{_USERNS}.uids.length": Served(
        ids("0 131072 9", "0 131072 9"), member("ids"), PodIds(131072, 9)
    ),
    f"{_USERNS}.gids.host_id": Refused(ids(gids="0 262144 65536"), ONE_MAP),
    f"{_USERNS}.gids.container_id": Refused(ids(gids="1 131072 65536"), ONE_MAP),
    f"{_USERNS}.gids.length": Refused(ids(gids="0 131072 9"), ONE_MAP),
    **{
        f"{_CONTEXT}.selinux_options.{name}": Served(
            context(f'selinux_options {{ {name}: "x" }}'),
            host("security_opt"),
            ("no-new-privileges", f"label={name}:x"),
        )
        for name in ("user", "role", "type", "level")
    },
    f"{_CONTEXT}.run_as_user.value": Ignored(context("run_as_user { value: 5 }"), _PAUSE),
    f"{_CONTEXT}.run_as_group.value": Ignored(context("run_as_group { value: 5 }"), _PAUSE),
    f"{_CONTEXT}.readonly_rootfs": Ignored(
        context("readonly_rootfs: true"), "the root of a sandbox is always read-only"
    ),
    f"{_CONTEXT}.supplemental_groups": Ignored(context("supplemental_groups: 5"), _PAUSE),
    f"{_CONTEXT}.supplemental_groups_policy": Ignored(
        context("supplemental_groups_policy: Strict"), _PAUSE
    ),
    f"{_CONTEXT}.privileged": Served(context("privileged: true"), member("privileged"), True),
    f"{_CONTEXT}.seccomp.profile_type": Ignored(
        context("seccomp { profile_type: Unconfined }"), _PAUSE
    ),
    f"{_CONTEXT}.seccomp.localhost_ref": Ignored(
        context('seccomp { profile_type: Localhost localhost_ref: "/absent" }'), _PAUSE
    ),
    f"{_CONTEXT}.apparmor.profile_type": Served(
        context("apparmor { profile_type: Unconfined }"),
        host("security_opt"),
        ("no-new-privileges", "apparmor=unconfined"),
    ),
    f"{_CONTEXT}.apparmor.localhost_ref": Served(
        context('apparmor { profile_type: Localhost localhost_ref: "localhost/mine" }'),
        host("security_opt"),
        ("no-new-privileges", "apparmor=mine"),
    ),
    f"{_CONTEXT}.seccomp_profile_path": Ignored(
        context('seccomp_profile_path: "unconfined"'), _PAUSE
    ),
}

_SHARED = "a container is in the namespaces of its sandbox"
CONTAINER: dict[str, Entry] = {
    "metadata.name": Served('metadata { name: "other" }', member("name"), "other"),
    "metadata.attempt": Served("metadata { attempt: 7 }", member("attempt"), 7),
    "image.image": Served('image { image: "other" }', body("image"), "other"),
    "image.annotations": Ignored(
        'image { annotations { key: "k" value: "v" } }', "the engine reads none"
    ),
    "image.user_specified_image": Served(
        'image { user_specified_image: "a:1" }', member("user_specified_image"), "a:1"
    ),
    "image.runtime_handler": Ignored(
        'image { runtime_handler: "x" }', "an image is stored once, for all handlers"
    ),
    "image.image_ref": Ignored('image { image_ref: "x" }', "it is a member of answers"),
    "command": Served('command: "sh"', body("entrypoint"), ("sh",)),
    "args": Served('args: "-c"', body("cmd"), ("-c",)),
    "working_dir": Served('working_dir: "/w"', body("working_dir"), "/w"),
    "envs.key": Served('envs { key: "A" }', body("env"), ("A=",)),
    "envs.value": Served('envs { key: "A" value: "b=\\377" }', body("env"), ("A=b=\udcff",)),
    "mounts.container_path": Served('mounts { container_path: "/c" }', mount("target"), "/c"),
    "mounts.host_path": Served('mounts { host_path: "/h" }', mount("source"), "/h"),
    "mounts.readonly": Served("mounts { readonly: true }", mount("read_only"), True),
    "mounts.selinux_relabel": Served(
        "mounts { selinux_relabel: true }", pod_mount("relabel"), True
    ),
    "mounts.propagation": Served(
        "mounts { propagation: PROPAGATION_HOST_TO_CONTAINER }", bind("propagation"), "rslave"
    ),
    **{
        f"mounts.{kind}.{name}": Served(
            "mounts { uidMappings { host_id: 70000 length: 9 }"
            " gidMappings { host_id: 70000 length: 9 } }",
            pod_mount("ids"),
            PodIds(70000, 9),
        )
        if kind == "uidMappings" and name != "container_id"
        else Refused(f"mounts {{ {kind} {{ {name}: 70000 }} }}", ONE_MAP)
        for kind in ("uidMappings", "gidMappings")
        for name in ("host_id", "container_id", "length")
    },
    "mounts.recursive_read_only": Served(
        "mounts { readonly: true recursive_read_only: true }",
        bind("read_only_force_recursive"),
        True,
    ),
    "mounts.image.image": Served(
        'mounts { readonly: true image { image: "i" } }', mount("type"), "image"
    ),
    "mounts.image.annotations": Ignored(
        'mounts { image { annotations { key: "k" value: "v" } } }', "the engine reads none"
    ),
    "mounts.image.user_specified_image": Ignored(
        'mounts { image { user_specified_image: "i" } }', "the image counts"
    ),
    "mounts.image.runtime_handler": Ignored(
        'mounts { image { runtime_handler: "x" } }', "an image is stored once, for all handlers"
    ),
    "mounts.image.image_ref": Ignored(
        'mounts { image { image_ref: "x" } }', "it is a member of answers"
    ),
    "mounts.image_sub_path": Served(
        'mounts { readonly: true image { image: "i" } image_sub_path: "a" }',
        lambda request: request.body.host_config.mounts[0].image_options.subpath,
        "a",
    ),
    "mounts.mount_options": Served(
        'mounts { mount_options: "noexec" }', pod_mount("options"), ("noexec",)
    ),
    "devices.container_path": Served(
        'devices { container_path: "/dev/x" }', device("path_in_container"), "/dev/x"
    ),
    "devices.host_path": Served(
        'devices { host_path: "/dev/null" }', device("path_on_host"), "/dev/null"
    ),
    "devices.permissions": Served(
        'devices { permissions: "r" }', device("cgroup_permissions"), "r"
    ),
    "labels": Served('labels { key: "k" value: "v" }', member("labels"), {"k": "v"}),
    "annotations": Served('annotations { key: "k" value: "v" }', member("annotations"), {"k": "v"}),
    "log_path": Served('log_path: "0.log"', member("log_path"), "0.log"),
    "stdin": Served("stdin: true", body("open_stdin"), True),
    "stdin_once": Served("stdin_once: true", body("stdin_once"), True),
    "tty": Served("tty: true", body("tty"), True),
    "CDI_devices.name": Served(
        'CDI_devices { name: "v.com/a=0" }',
        lambda request: request.body.host_config.device_requests[0].device_ids,
        ("v.com/a=0",),
    ),
    "stop_signal": Served("stop_signal: SIGNAL_SIGCLD", body("stop_signal"), "SIGCLD"),
    f"{_CONTEXT}.capabilities.add_capabilities": Served(
        context('capabilities { add_capabilities: "NET_ADMIN" }'), host("cap_add"), ("NET_ADMIN",)
    ),
    f"{_CONTEXT}.capabilities.drop_capabilities": Served(
        context('capabilities { drop_capabilities: "all" add_capabilities: "ALL" }'),
        lambda request: (request.body.host_config.cap_add, request.body.host_config.cap_drop),
        ((), ("all",)),
    ),
    f"{_CONTEXT}.capabilities.add_ambient_capabilities": Refused(
        context('capabilities { add_ambient_capabilities: "CHOWN" }'), "ambient"
    ),
    f"{_CONTEXT}.privileged": Served(context("privileged: true"), host("privileged"), True),
    f"{_CONTEXT}.namespace_options.network": Ignored(
        context("namespace_options { network: NODE }"), _SHARED
    ),
    f"{_CONTEXT}.namespace_options.pid": Served(
        context("namespace_options { pid: CONTAINER }"), member("pid"), "CONTAINER"
    ),
    f"{_CONTEXT}.namespace_options.ipc": Ignored(
        context("namespace_options { ipc: NODE }"), _SHARED
    ),
    f"{_CONTEXT}.namespace_options.target_id": Served(
        context('namespace_options { pid: TARGET target_id: "x" }'), member("target"), "x"
    ),
    f"{_USERNS}.mode": Refused(ids(mode="CONTAINER"), "must be POD or NODE"),
    f"{_USERNS}.uids.host_id": Served(ids(), member("ids"), PodIds(131072, 65536)),
    f"{_USERNS}.uids.container_id": Refused(ids("1 131072 65536", "1 131072 65536"), ONE_MAP),
    f"{_USERNS}.uids.length": Served(
        ids("0 131072 9", "0 131072 9"), member("ids"), PodIds(131072, 9)
    ),
    f"{_USERNS}.gids.host_id": Refused(ids(gids="0 262144 65536"), ONE_MAP),
    f"{_USERNS}.gids.container_id": Refused(ids(gids="1 131072 65536"), ONE_MAP),
    f"{_USERNS}.gids.length": Refused(ids(gids="0 131072 9"), ONE_MAP),
    **{
        f"{_CONTEXT}.selinux_options.{name}": Served(
            context(f'selinux_options {{ {name}: "x" }}'),
            host("security_opt"),
            (f"label={name}:x",),
        )
        for name in ("user", "role", "type", "level")
    },
    f"{_CONTEXT}.run_as_user.value": Served(context("run_as_user { value: 5 }"), body("user"), "5"),
    f"{_CONTEXT}.run_as_group.value": Served(
        context("run_as_user { value: 5 } run_as_group { value: 6 }"), body("user"), "5:6"
    ),
    f"{_CONTEXT}.run_as_username": Served(context('run_as_username: "u"'), body("user"), "u"),
    f"{_CONTEXT}.readonly_rootfs": Served(
        context("readonly_rootfs: true"), host("readonly_rootfs"), True
    ),
    f"{_CONTEXT}.supplemental_groups": Served(
        context("supplemental_groups: 5"), host("group_add"), ("5",)
    ),
    f"{_CONTEXT}.supplemental_groups_policy": Served(
        context("supplemental_groups_policy: Strict"), member("groups_policy"), "Strict"
    ),
    f"{_CONTEXT}.no_new_privs": Served(
        context("no_new_privs: true"), host("security_opt"), ("no-new-privileges",)
    ),
    f"{_CONTEXT}.masked_paths": Served(
        context('masked_paths: "/proc/a"'), host("masked_paths"), ("/proc/a",)
    ),
    f"{_CONTEXT}.readonly_paths": Served(
        context('readonly_paths: "/proc/a"'), host("readonly_paths"), ("/proc/a",)
    ),
    f"{_CONTEXT}.seccomp.profile_type": Served(
        context("seccomp { profile_type: Unconfined }"),
        host("security_opt"),
        ("seccomp=unconfined",),
    ),
    f"{_CONTEXT}.seccomp.localhost_ref": Refused(
        context('seccomp { profile_type: Localhost localhost_ref: "/absent" }'), "/absent"
    ),
    f"{_CONTEXT}.apparmor.profile_type": Served(
        context("apparmor { profile_type: Unconfined }"),
        host("security_opt"),
        ("apparmor=unconfined",),
    ),
    f"{_CONTEXT}.apparmor.localhost_ref": Served(
        context('apparmor { profile_type: Localhost localhost_ref: "mine" }'),
        host("security_opt"),
        ("apparmor=mine",),
    ),
    f"{_CONTEXT}.apparmor_profile": Served(
        context('apparmor_profile: "localhost/mine"'), host("security_opt"), ("apparmor=mine",)
    ),
    f"{_CONTEXT}.seccomp_profile_path": Served(
        context('seccomp_profile_path: "unconfined"'),
        host("security_opt"),
        ("seccomp=unconfined",),
    ),
}


def fields(descriptor: Descriptor, prefix: str = "") -> Iterator[str]:
    """Yield the paths of all fields that have a value of their own, maps as one."""
    for field in descriptor.fields:
        path = f"{prefix}{field.name}"
        kind = field.message_type
        if kind is None or kind.GetOptions().map_entry:
            yield path
        elif kind.name not in ELSEWHERE:
            yield from fields(kind, f"{path}.")


@pytest.mark.parametrize(
    ("message", "table"),
    [(api_pb2.PodSandboxConfig, SANDBOX), (api_pb2.ContainerConfig, CONTAINER)],
)
def test_every_field_is_in_the_table(message: Any, table: dict[str, Entry]) -> None:
    assert sorted(table) == sorted(fields(message.DESCRIPTOR))


def sandbox(text: str) -> PodSandboxRequest:
    config = api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name="web", uid="1", namespace="default")
    )
    config.MergeFrom(text_format.Parse(text, api_pb2.PodSandboxConfig()))
    return sandbox_request(config, "")


def container(text: str) -> PodContainerRequest:
    """Return the request for a container that names a seccomp profile, as the kubelet does."""
    config = api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name="main"), image=api_pb2.ImageSpec(image="app")
    )
    if "seccomp_profile_path" not in text:
        default = api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.RuntimeDefault)
        config.linux.security_context.seccomp.CopyFrom(default)
    config.MergeFrom(text_format.Parse(text, api_pb2.ContainerConfig()))
    return container_request("s", config)


@pytest.mark.parametrize(
    ("build", "entry"),
    [
        *(pytest.param(sandbox, entry, id=f"sandbox-{path}") for path, entry in SANDBOX.items()),
        *(pytest.param(container, entry, id=path) for path, entry in CONTAINER.items()),
    ],
)
def test_a_field_is_served_refused_or_ignored_as_listed(
    build: Callable[[str], Any], entry: Entry
) -> None:
    match entry:
        case Served(text, get, expected):
            assert get(build(text)) == expected
            assert build(text) != build("")
        case Refused(text, message):
            with pytest.raises(JaulaError, match=message) as caught:
                build(text)
            assert isinstance(caught.value, InvalidRequest | Unsupported)
        case Ignored(text, reason):
            assert reason
            known = "mounts { }" if text.startswith("mounts") else ""
            assert build(text) == build(known)


@pytest.mark.parametrize("name", ["seccomp_profile_path", "apparmor_profile"])
def test_the_deprecated_texts_of_profiles_count_without_a_profile_only(name: str) -> None:
    default = container(context(f'{name}: "runtime/default"')).body.host_config
    assert default.security_opt == ()
    field = "seccomp" if name.startswith("seccomp") else "apparmor"
    both = container(context(f'{name}: "unconfined" {field} {{ profile_type: RuntimeDefault }}'))
    assert both.body.host_config.security_opt == ()
    with pytest.raises(InvalidRequest, match="must be one of"):
        container(context(f'{name}: "other"'))


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (("ALL",), ("sys_time",), ("ALL",)),
        (("SYS_TIME", "CHOWN"), ("cap_sys_time",), ("CHOWN",)),
        (("all", "CHOWN"), ("ALL",), ("CHOWN",)),
        (("CHOWN",), ("ALL", "CHOWN"), ()),
    ],
)
def test_a_dropped_capability_is_not_added(
    add: tuple[str, ...], drop: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    capabilities = api_pb2.Capability(add_capabilities=add, drop_capabilities=drop)
    config = api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name="main"), image=api_pb2.ImageSpec(image="app")
    )
    config.linux.security_context.capabilities.CopyFrom(capabilities)
    host_config = container_request("s", config).body.host_config
    assert (host_config.cap_add, host_config.cap_drop) == (expected, drop)


def test_cdi_devices_of_annotations_count_without_the_field_only() -> None:
    annotation = 'annotations { key: "cdi.k8s.io/x" value: "v.com/a=0,v.com/a=1" }'
    devices = container(annotation).body.host_config.device_requests
    assert [device.device_ids for device in devices] == [("v.com/a=0",), ("v.com/a=1",)]
    (device,) = container(
        f'{annotation} CDI_devices {{ name: "v.com/b=0" }}'
    ).body.host_config.device_requests
    assert device.device_ids == ("v.com/b=0",)
