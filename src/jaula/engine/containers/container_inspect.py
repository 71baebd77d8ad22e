"""Docker's document of one container (Engine API 1.45, ``ContainerInspectResponse``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.config import OWN_RUNTIME
from jaula.engine import relaxations as engine_relaxations
from jaula.engine.containers import presets
from jaula.engine.containers.log_config import log_options, log_path, pod_log
from jaula.engine.model.seal import request_seal
from jaula.engine.networks import container_links, network_settings
from jaula.engine.oci_spec.container_mounts import SHM_SIZE
from jaula.engine.oci_spec.host_facts import refresh
from jaula.engine.oci_spec.security_opt import apparmor_profile_name, covered_paths
from jaula.engine.oci_spec.security_opt import selinux_labels as security_labels
from jaula.engine.userns import join
from jaula.errors import Conflict, InvalidRequest, Unsupported
from jaula.kernel import mountinfo
from jaula.logs import timestamp
from jaula.security import landlock_ruleset
from jaula.spec import run_options
from jaula.spec.annotations import LANDLOCK_ANNOTATION, decode_ruleset
from jaula.spec.confinement_profile import digest
from jaula.spec.image_documents import diff_id_of
from jaula.state.container_records import (
    ContainerRecord,
    HealthRecord,
    MountRecord,
    NamespaceMode,
    Status,
)

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.spec.api_documents import HostConfig

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, which clients read as 'not yet'."""


def format_time(nanoseconds: int) -> str:
    """Return a time as RFC 3339 with nanoseconds."""
    return timestamp.format_time(nanoseconds) if nanoseconds else NEVER


def _log_path(services: Services, record: ContainerRecord) -> str:
    """Return the path of a log that other programs read, '' if there is none."""
    log = record.log
    if (file := pod_log(log)) is not None:
        return file.name
    driver, _ = log_options(services.config, log)
    return log_path(services.config, record.id) if driver == "json-file" else ""


def document(services: Services, container: Container) -> dict[str, Any]:
    """Return the whole document, without sizes."""
    record = container.record
    paths = services.config.paths
    directory = paths.container(record.id)
    resolved = record.resolved
    labels = security_labels(resolved, services.host, record.level)
    return {
        "Id": record.id,
        "Created": format_time(record.created),
        "Path": record.args[0],
        "Args": list(record.args[1:]),
        "State": state(record) | _network_pid(container),
        "Image": record.image,
        "ImageManifestDescriptor": manifest_descriptor(services, container),
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": _log_path(services, record),
        "Name": f"/{record.name}",
        "Owner": record.owner,
        "RestartCount": record.restart_count,
        "Driver": record.storage_driver,
        "Platform": record.platform,
        "MountLabel": labels.mount,
        "ProcessLabel": labels.process,
        "AppArmorProfile": apparmor_profile_name(resolved, refresh(services.host)),
        "Landlock": landlock_rules(directory / "config.json"),
        "RequestSeal": request_seal(record),
        "PauseRequested": record.paused_by_client or record.frozen_by_commit,
        "ExecIDs": sorted(container.execs) or None,
        "HostConfig": host_config(services, record),
        "Relaxations": relaxations(record),
        "Refusals": dict(sorted(container.refusals.items())),
        "GraphDriver": {
            "Name": record.storage_driver,
            "Data": {
                "LowerDir": ":".join(
                    f"{paths.layers}/{diff_id_of(name).removeprefix('sha256:')}/fs"
                    for name in record.layers[::-1]
                ),
                "UpperDir": str(directory / "upper"),
                "WorkDir": str(directory / "work"),
            }
            if record.storage_driver == "overlay"
            else None,
        },
        "Mounts": mounts(record, {} if services.host.rootless else _id_mapped(container)),
        "Config": config(record),
        "NetworkSettings": network_settings.settings(record, services.network_store.id_of),
        **_egress(services, record),
        **services.hooks.container_inspected(services, record),
        **pod(services, record),
    }


def _network_pid(container: Container) -> dict[str, Any]:
    """Return ``NetworkPid`` for a container of an external runtime, which has reported ``Pid``.

    It is that process if it has the container's network, else 0: the monitor of a virtual machine
    has the host's.
    """
    if not (container.live and container.record.external_runtime):
        return {}
    return {"NetworkPid": join.process_in(container, "network")}


def _egress(services: Services, record: ContainerRecord) -> dict[str, Any]:
    """Return what the egress list of a container refused: ``EgressRefused``, ``NamesRefused``."""
    if record.host_config.egress is None:
        return {}
    refused = services.network_manager.refused_egress(record.id)
    rows = [{"Destination": row.destination, "Packets": row.packets} for row in refused]
    names = services.dns_servers.refused(record.id)
    queries = [{"Name": item, "Queries": count} for item, count in sorted(names.items())]
    return {"EgressRefused": rows, **({"NamesRefused": queries} if queries else {})}


def pod(services: Services, record: ContainerRecord) -> dict[str, Any]:
    """Return the member ``Pod`` of a container of Kubernetes; nothing for another container.

    ``Sandbox`` is the id of the sandbox, ``Container`` the name in the pod, '' for the sandbox.
    ``Network`` is what the CNI plugins have reported, None without them.
    """
    if not record.in_pod:
        return {}
    sandbox_id = record.pod.sandbox if record.pod else record.id
    document: dict[str, Any] = {
        "Sandbox": sandbox_id,
        "Container": record.pod.name if record.pod else "",
    }
    sandbox = services.container_store.get(sandbox_id)
    if sandbox is not None and (pod_sandbox := sandbox.record.sandbox) is not None:
        request = pod_sandbox.request
        document |= {
            "Name": request.metadata.name,
            "Namespace": request.metadata.namespace,
            "UID": request.metadata.uid,
            "SharedPID": request.shared_pid,
            "Addresses": list(pod_sandbox.addresses),
            "HostPorts": [f"{p.host_port}->{p.container_port}/{p.protocol}" for p in request.ports],
            "Network": None
            if pod_sandbox.attachment is None
            else {
                "Interfaces": [
                    {"Name": interface.name, "MacAddress": interface.mac}
                    for interface in pod_sandbox.attachment.interfaces
                ],
                "HostInterfaces": list(pod_sandbox.attachment.host_interfaces),
                "Addresses": list(pod_sandbox.attachment.addresses),
                "Gateways": list(pod_sandbox.attachment.gateways),
                "Destinations": list(pod_sandbox.attachment.destinations),
            },
        }
    return {"Pod": document}


def manifest_descriptor(services: Services, container: Container) -> dict[str, Any] | None:
    """Return the OCI descriptor of the image's manifest; None if the image was removed.

    It is read once for each container, since the manifest of its image does not change. The sandbox
    of a pod has no image.
    """
    if container.image_manifest is None and container.record.image:
        descriptor = services.images.manifest_descriptor(container.record.image)
        if descriptor is not None:
            container.image_manifest = msgspec.to_builtins(descriptor)
    return container.image_manifest


class _Annotated(msgspec.Struct):
    annotations: dict[str, str] = {}


_annotated = msgspec.json.Decoder(_Annotated)


def landlock_rules(spec: Path) -> str:
    """Return a description of the Landlock rules of the last start, '' if there are none."""
    try:
        text = _annotated.decode(spec.read_bytes()).annotations.get(LANDLOCK_ANNOTATION)
        return landlock_ruleset.describe(decode_ruleset(text)) if text is not None else ""
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, InvalidRequest):  # a power failure can leave it empty
        return "unknown: the spec of the last start cannot be read"


def state(record: ContainerRecord) -> dict[str, Any]:
    """Return ``State``: a paused container is also running, as with Docker."""
    status = record.status
    document: dict[str, Any] = {
        "Status": str(status),
        "Running": status in (Status.RUNNING, Status.PAUSED, Status.RESTARTING),
        "Paused": status is Status.PAUSED,
        "Restarting": status is Status.RESTARTING,
        "OOMKilled": record.oom_killed,
        "Dead": status is Status.DEAD,
        "Pid": record.pid,
        "ExitCode": record.exit_code,
        "Error": record.error,
        "StartedAt": format_time(record.started_at),
        "FinishedAt": format_time(record.finished_at),
    }
    if record.health is not None:
        document["Health"] = health(record.health)
    return document


def health(record: HealthRecord) -> dict[str, Any]:
    """Return ``State.Health``."""
    return {
        "Status": str(record.status),
        "FailingStreak": record.failing_streak,
        "Log": [
            {
                "Start": format_time(result.start),
                "End": format_time(result.end),
                "ExitCode": result.exit_code,
                "Output": result.output,
            }
            for result in record.log
        ],
    }


def relaxations(record: ContainerRecord) -> list[str]:
    """Return the names of what the request has beyond the defaults or weakens in its preset."""
    host = record.body.host_config
    privileges = engine_relaxations.of_request(record.body, record.resolved, record.engine_socket)
    requested = (str(privilege) for privilege in privileges)
    return list(dict.fromkeys((*presets.deviations(host), *requested)))


def _decided(record: ContainerRecord) -> HostConfig:
    """Return the body's ``HostConfig`` with the members that the resolved request decides.

    Mounts, published ports and security options keep the notation of the body: the resolved
    request has none.
    """
    host, resolved = record.body.host_config, record.resolved
    modes, security = resolved.namespaces, resolved.security
    return msgspec.structs.replace(
        host,
        network_mode=_mode(modes.net, modes.network or "none"),
        userns_mode=_mode(modes.user, host.userns_mode),
        pid_mode=_mode(modes.pid, host.pid_mode),
        ipc_mode=_mode(modes.ipc, host.ipc_mode),
        uts_mode=_mode(modes.uts, host.uts_mode),
        cgroupns_mode=_mode(modes.cgroup, host.cgroupns_mode),
        privileged=security.privileged,
        cap_add=security.cap_add,
        cap_drop=security.cap_drop,
        readonly_rootfs=security.readonly_rootfs,
    )


def _mode(mode: NamespaceMode, private: str) -> str:
    """Return a namespace mode in Docker's notation; ``private`` is that of a private one."""
    if mode.host:
        return "host"
    if mode.container:
        return f"container:{mode.container}"
    return "" if private == "host" or private.startswith("container:") else private


def host_config(services: Services, record: ContainerRecord) -> dict[str, Any]:
    """Return the request's ``HostConfig`` with the defaults that were in effect."""
    host, resolved = _decided(record), record.resolved
    echo: dict[str, Any] = msgspec.to_builtins(host)
    driver, options = log_options(services.config, record.log)
    masked, readonly = covered_paths(resolved.security)
    if host.memory > 0 and not host.memory_swap and services.host.swap_accounting:
        echo["MemorySwap"] = host.memory * 2
    echo |= {
        "LogConfig": {"Type": driver, "Config": options},
        "RestartPolicy": {
            "Name": host.restart_policy.name or "no",
            "MaximumRetryCount": host.restart_policy.maximum_retry_count,
        },
        "IpcMode": host.ipc_mode or "private",
        "CgroupnsMode": host.cgroupns_mode or "private",
        "UsernsMode": host.userns_mode or "private",
        "ShmSize": host.shm_size or SHM_SIZE,
        "Runtime": host.runtime or OWN_RUNTIME,
        "PidsLimit": services.host.pids_limit if host.pids_limit is None else host.pids_limit,
        "MaskedPaths": list(masked),
        "ReadonlyPaths": list(readonly),
        "CgroupParent": host.cgroup_parent,
        "Profile": host.profile or presets.DEFAULT,
        "OomKillDisable": bool(host.oom_kill_disable),
        "Links": [
            link.qualified(record.name)
            for link in resolved.links
            if container_links.by_address(resolved.namespaces)  # others are those of an endpoint
        ],
        "MemorySwappiness": None if host.memory_swappiness == -1 else host.memory_swappiness,
    }
    if (document := presets.document(host)) is not None:
        echo["ProfileName"] = document.name
        echo["ProfileDigest"] = digest(host.profile)
    for name, items in (("Egress", host.egress), ("Listen", host.listen)):
        if items is None:
            del echo[name]
    del echo["ProfileKeeps"]  # its effect is in the members that it names
    for name in ("Binds", "CapAdd", "CapDrop", "SecurityOpt", "VolumesFrom", "ExtraHosts", "Links"):
        echo[name] = echo[name] or None  # Docker's null for an absent option
    echo["Mounts"] = [{k: v for k, v in one.items() if v} for one in echo["Mounts"]]
    for name in (
        *("Sysctls", "Tmpfs", "Mounts", "Annotations", "StorageOpt"),
        *("Secrets", "Configs"),
    ):
        if not echo[name]:
            del echo[name]
    if host.init is None:
        del echo["Init"]
    for option in run_options.DECLARED:
        if option.document == run_options.HOST_CONFIG and not echo[option.member]:
            del echo[option.member]
    for name in ("KernelMemory", "KernelMemoryTCP"):  # limits that the kernel has removed
        del echo[name]
    return echo


def mounts(
    record: ContainerRecord, id_mapped: Mapping[str, bool] | None = None
) -> list[dict[str, Any]]:
    """Return ``Mounts``; mounts of ``--tmpfs`` are in ``HostConfig.Tmpfs`` alone.

    ``id_mapped`` says by destination whether a bind mount has an id map.
    """
    tmpfs = record.body.host_config.tmpfs
    return [
        mount(m, (id_mapped or {}).get(m.destination))
        for m in record.mounts
        if m.type != "tmpfs" or m.destination not in tmpfs
    ]


def _id_mapped(container: Container) -> dict[str, bool]:
    """Return by destination whether the bind mounts of a running container have an id map.

    A container without a user namespace of its own, or that does not run, has an empty result.
    """
    record = container.record
    binds = {m.destination for m in record.mounts if m.type == "bind"}
    if not binds or not container.live or not record.pid or record.resolved.namespaces.user.host:
        return {}
    try:
        join.check(container)
        table = mountinfo.read(f"/proc/{record.pid}/mountinfo")
    except (OSError, ValueError, Conflict, Unsupported):
        return {}  # it has just exited, or its runtime has reported another process
    return {row.target: "idmapped" in row.options for row in table if row.target in binds}


def mount(record: MountRecord, id_mapped: bool | None = None) -> dict[str, Any]:
    """Return one ``MountPoint``; ``id_mapped`` is None if not known, or not a bind mount."""
    document: dict[str, Any] = {"Type": record.type}
    if record.name:
        document["Name"] = record.name
    document |= {
        "Source": record.source,
        "Destination": record.destination,
    }
    if record.driver:
        document["Driver"] = record.driver
    return document | {
        "Mode": record.mode,
        "RW": not record.read_only,
        "Propagation": record.propagation,
        **({} if id_mapped is None else {"IDMapped": id_mapped}),
    }


def config(record: ContainerRecord) -> dict[str, Any]:
    """Return ``Config``: the configuration of the program, merged of image and request."""
    body = record.body
    document: dict[str, Any] = {
        "Hostname": record.hostname,
        "Domainname": body.domainname,
        "User": body.user,
        "AttachStdin": body.attach_stdin,
        "AttachStdout": body.attach_stdout,
        "AttachStderr": body.attach_stderr,
        "Tty": body.tty,
        "OpenStdin": body.open_stdin,
        "StdinOnce": body.stdin_once,
        "Env": list(body.env),
        "Cmd": None if body.cmd is None else list(body.cmd),
        "Image": body.image,
        "Volumes": {path: {} for path in body.volumes} or None,
        "WorkingDir": body.working_dir,
        "Entrypoint": None if body.entrypoint is None else list(body.entrypoint),
        "OnBuild": list(body.on_build) or None,
        "Labels": dict(body.labels),
    }
    if mac := network_settings.mac_address(record):
        document["MacAddress"] = mac
    if body.exposed_ports:
        document["ExposedPorts"] = {port: {} for port in body.exposed_ports}
    if body.healthcheck is not None:
        healthcheck: dict[str, Any] = msgspec.to_builtins(body.healthcheck)
        document["Healthcheck"] = {key: value for key, value in healthcheck.items() if value}
    if body.stop_signal:
        document["StopSignal"] = body.stop_signal
    if body.stop_timeout is not None:
        document["StopTimeout"] = body.stop_timeout
    for option in run_options.DECLARED:
        if option.document == run_options.CONFIG and (
            value := run_options.member(body, option.name)
        ):
            document[option.member] = value
    return document
