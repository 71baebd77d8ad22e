"""The OCI spec of one start: the document, its process section, devices and sysctls. Pure.

Source: Docker's ``oci_linux.go`` (``withCommonOptions``, ``CreateDaemonEnvironment``) for the
environment that images expect; statement I1 for working directories.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

import msgspec

from jaula import __version__
from jaula.engine.oci_spec import container_mounts, spec_namespaces, spec_resources
from jaula.engine.oci_spec.inputs import HostFacts, SpecInputs
from jaula.engine.oci_spec.security_opt import SecurityConfig
from jaula.errors import InvalidRequest
from jaula.security import allowed_devices, allowed_sysctls, capability_sets
from jaula.security.landlock_ruleset import Landlock
from jaula.security.lsm.apparmor_choice import AppArmor
from jaula.security.lsm.interface import LabelRequest, MandatoryAccess
from jaula.security.lsm.selinux_choice import SELinux
from jaula.spec.annotations import (
    BIND_ROOT_ANNOTATION,
    HOST_BINDS_ANNOTATION,
    IDMAP_OPTIONAL_ANNOTATION,
    VERSION_ANNOTATION,
    encode_bind_roots,
    encode_destinations,
    path_below,
)
from jaula.spec.api_documents import ContainerCreate, DeviceMapping, HostConfig
from jaula.spec.run_options import member
from jaula.spec.runtime_spec import (
    Box,
    Device,
    DeviceCgroup,
    Linux,
    Process,
    Root,
    Spec,
    User,
)
from jaula.state.container_records import MountRecord, Namespaces, ResolvedRequest, UserFacts

INIT_PATH = container_mounts.INIT_PATH


def build(
    body: ContainerCreate,
    resolved: ResolvedRequest,
    inputs: SpecInputs,
    confinement: SecurityConfig,
) -> Spec:
    """Return the document for the runtime.

    ``body`` describes the program and has what needs no decision. Both were authorized.

    :raises InvalidRequest: when there is no program, or a device or sysctl is not allowed.
    """
    host, modes = body.host_config, resolved.namespaces
    devices, rules = devices_of(host, resolved, inputs)
    limits = spec_resources.decide(host, inputs.host, resolved.pod_resources)
    spec = Spec(
        process=process_section(body, resolved, inputs, confinement),
        root=Root("rootfs", readonly=resolved.security.readonly_rootfs),
        hostname=inputs.hostname if modes.uts.private else None,
        domainname=body.domainname or None if modes.uts.private else None,
        mounts=container_mounts.decide(
            modes,
            inputs,
            shm_size=host.shm_size,
            privileged=resolved.security.privileged,
            read_only=resolved.security.readonly_rootfs,
            proc=confinement.proc,
        ),
        annotations={
            **host.annotations,
            **mount_annotations(inputs),
        },
        linux=Linux(
            namespaces=spec_namespaces.namespaces(
                modes, inputs.joined, time=inputs.host.time_namespaces and not inputs.external
            ),
            uid_mappings=inputs.mappings,
            gid_mappings=inputs.gid_mappings or inputs.mappings,
            devices=devices,
            cgroups_path=inputs.cgroup_path,
            resources=msgspec.structs.replace(limits, devices=rules),
            rootfs_propagation="private",
            seccomp=confinement.seccomp,
            sysctl=_sysctls(host, modes, inputs),
            masked_paths=confinement.masked,
            readonly_paths=confinement.readonly,
        ),
    )
    if inputs.edits:
        from jaula.security import cdi

        spec = cdi.apply(spec, inputs.edits)
    for module, request in _modules(inputs, confinement):
        spec = module.confine(spec, request)
    return spec


def with_version(spec: Spec) -> Spec:
    """Return a spec that names this version of the engine, which has decided its defaults. Pure."""
    return msgspec.structs.replace(
        spec, annotations={**spec.annotations, VERSION_ANNOTATION: __version__}
    )


def mount_annotations(inputs: SpecInputs) -> dict[str, str]:
    """Return the annotations that tell the runtime how to open and map the mounts."""
    return {**_bounds(inputs), **_optional_id_maps(inputs), **_host_binds(inputs)}


def _bounds(inputs: SpecInputs) -> dict[str, str]:
    """Return the bounds of mounts: of a volume its subpath, of a host directory the policy's."""
    bounds = {}
    for mount in inputs.mounts:
        if mount.subpath:
            bounds[mount.source] = mount.source.removesuffix(f"/{mount.subpath}")
        elif mount.type == "bind":
            matching = [p for p in inputs.beneath if path_below(mount.source, p) is not None]
            bound = max(matching, key=len, default="/")
            if bound != "/":  # every path is below the root, whatever links say
                bounds[mount.source] = bound
    return {BIND_ROOT_ANNOTATION: encode_bind_roots(bounds)} if bounds else {}


def _optional_id_maps(inputs: SpecInputs) -> dict[str, str]:
    """Return the host directories that are mounted as they are where no id map is possible.

    Without a map, the container's root is a user of the host without rights of its own there.
    """
    binds = tuple(
        mount.destination
        for mount in inputs.mounts
        if mount.type == "bind" and not mount.mapped and not mount.map_required
    )
    if not inputs.id_mapped or not binds:
        return {}
    return {IDMAP_OPTIONAL_ANNOTATION: encode_destinations(binds)}


def host_binds(
    mounts: Iterable[MountRecord], host: HostFacts, private: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Return the destinations of mounts whose source is opened in the host's mount namespace.

    A change of a mount's flags never reaches the engine's namespace, and a new mount only where the
    host's mounts propagate. Volumes named in ``private`` are mounted in the engine's namespace.
    """
    if not host.private_mounts:
        return ()
    return tuple(
        m.destination
        for m in mounts
        if (m.type == "bind" and not m.mapped)
        or (m.type == "volume" and m.name and m.name not in private)
    )


def _host_binds(inputs: SpecInputs) -> dict[str, str]:
    binds = host_binds(inputs.mounts, inputs.host, inputs.private_volumes)
    return {HOST_BINDS_ANNOTATION: encode_destinations(binds)} if binds else {}


def _modules(
    inputs: SpecInputs, confinement: SecurityConfig
) -> tuple[tuple[MandatoryAccess, LabelRequest], ...]:
    """Return the modules for mandatory access control, each with the request for it."""
    host = inputs.host
    selinux = SELinux(
        active=host.selinux, types=host.selinux_types, level=inputs.level, spc=host.selinux_spc
    )
    apparmor = AppArmor(
        active=host.apparmor, loaded=host.apparmor_profiles, default=host.apparmor_default
    )
    return (
        (selinux, confinement.label),
        (apparmor, confinement.apparmor),
        (Landlock(host.landlock), confinement.landlock),
    )


def runs_init(host: HostConfig, namespaces: Namespaces) -> bool:
    """Return whether an init program is the container's first process.

    It reaps orphans as process 1, so it has no purpose in a shared pid namespace. Docker leaves it
    out there too.
    """
    return bool(host.init) and namespaces.pid.private


def process_section(
    body: ContainerCreate,
    resolved: ResolvedRequest,
    inputs: SpecInputs,
    confinement: SecurityConfig,
) -> Process:
    """Return the process section."""
    host = body.host_config
    argv = arguments(body)
    if runs_init(host, resolved.namespaces):
        argv = (INIT_PATH, "--", *argv)
    rows, columns = host.console_size
    return Process(
        cwd=working_directory(body.working_dir),
        args=argv,
        env=environment(body.env, hostname=inputs.hostname, tty=body.tty, user=inputs.user),
        terminal=body.tty,
        console_size=Box(height=rows, width=columns) if body.tty and rows and columns else None,
        user=User(
            uid=inputs.user.uid,
            gid=inputs.user.gid,
            umask=_umask(member(body, "umask")),
            additional_gids=inputs.user.additional_gids,
        ),
        capabilities=capability_sets.of_user(confinement.capabilities, inputs.user.uid),
        rlimits=spec_resources.rlimits(host, inputs.host.nofile),
        no_new_privileges=confinement.no_new_privileges,
        oom_score_adj=host.oom_score_adj or None,
    )


def devices_of(
    host: HostConfig, resolved: ResolvedRequest, inputs: SpecInputs
) -> tuple[tuple[Device, ...], tuple[DeviceCgroup, ...]]:
    """Return the device nodes and the allow-list of the cgroup, which denies everything else."""
    nodes = list(allowed_devices.DEFAULT_DEVICES)
    rules = [DeviceCgroup(allow=False, access="rwm"), *allowed_devices.DEFAULT_RULES]
    for mapping in host.devices:
        for node, rule in devices(mapping):
            nodes.append(node)
            rules.append(rule)
    rules += [cgroup_rule(text) for text in host.device_cgroup_rules]
    if resolved.security.privileged and resolved.namespaces.user.host:
        rules = [DeviceCgroup(allow=True, access="rwm")]
        for path in inputs.devices:
            nodes += [node for node, _ in allowed_devices.parse_device(path)]
    return tuple({node.path: node for node in nodes}.values()), tuple(rules)


def devices(mapping: DeviceMapping) -> tuple[tuple[Device, DeviceCgroup], ...]:
    """Return node and rule of ``--device``: one of the host, or those of a directory.

    :raises InvalidRequest: when there is no such node, or the permissions are not valid.
    """
    inside = mapping.path_in_container or mapping.path_on_host
    return allowed_devices.parse_device(
        f"{mapping.path_on_host}:{inside}:{mapping.cgroup_permissions or 'rwm'}"
    )


def cgroup_rule(text: str) -> DeviceCgroup:
    """Return the rule of ``--device-cgroup-rule``: ``c 1:3 rwm`` with ``*`` for any number.

    :raises InvalidRequest: when the text has another form.
    """
    words = text.split()
    numbers = words[1].split(":") if len(words) == 3 else []
    if (
        len(numbers) != 2
        or words[0] not in ("a", "b", "c")
        or not words[2]
        or set(words[2]) - set("rwm")
        or not all(n == "*" or (n.isascii() and n.isdigit()) for n in numbers)
    ):
        raise InvalidRequest(f"invalid device cgroup format: '{text}'")
    major, minor = (None if n == "*" else int(n) for n in numbers)
    return DeviceCgroup(allow=True, type=words[0], major=major, minor=minor, access=words[2])


def _sysctls(host: HostConfig, modes: Namespaces, inputs: SpecInputs) -> dict[str, str]:
    """Return the requested sysctls, with Docker's defaults for a network of the container's own."""
    if not modes.net.private:
        return host.sysctls
    gids = inputs.gid_mappings or inputs.mappings
    return allowed_sysctls.with_network_defaults(host.sysctls, gids)


def check(body: ContainerCreate, resolved: ResolvedRequest) -> None:
    """Check the parts of a request that no other module checks before a start.

    :raises InvalidRequest: when one is not valid.
    """
    _check_sysctls(body.host_config, resolved.namespaces)
    _umask(member(body, "umask"))


def _check_sysctls(host: HostConfig, modes: Namespaces) -> None:
    """Check that sysctls belong to namespaces that the container does not share with the host.

    :raises InvalidRequest: when one does not (statement I24).
    """
    kinds = (("network", modes.net), ("ipc", modes.ipc), ("uts", modes.uts))
    shared = frozenset(kind for kind, mode in kinds if not mode.private)
    for name, value in host.sysctls.items():
        allowed_sysctls.check(name, value, shared)


# -- the program ---------------------------------------------------------------------------------


DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def arguments(body: ContainerCreate) -> tuple[str, ...]:
    """Return entry point and command, joined.

    :raises InvalidRequest: when there is neither.
    """
    joined = (*(body.entrypoint or ()), *(body.cmd or ()))
    if not joined:
        raise InvalidRequest(
            "no command specified", hint="the image has none; write one after the image's name"
        )
    if any("\0" in argument for argument in joined):
        raise InvalidRequest("an argument contains a NUL byte")
    return joined


def _umask(text: str) -> int | None:
    """Return a file mode creation mask, None for that of the runtime.

    :raises InvalidRequest: when it is not an octal number.
    """
    if not text:
        return None
    if len(text) > 4 or not text.isascii() or text.strip("01234567") or int(text, 8) > 0o777:
        raise InvalidRequest(f"invalid umask {text[:80]!r}", hint="octal, such as 0022")
    return int(text, 8)


def merge_environment(base: Iterable[str], over: Iterable[str]) -> tuple[str, ...]:
    """Return ``base`` with the entries of ``over``: ``NAME=value`` replaces, ``NAME`` removes.

    :raises InvalidRequest: when an entry has no name or contains a NUL byte.
    """
    merged: dict[str, str] = {}
    for entry in (*base, *over):
        name, equals, _ = entry.partition("=")
        if not name or "\0" in entry:
            raise InvalidRequest(f"invalid environment variable: {entry!r}")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return tuple(merged.values())


def environment(
    env: Sequence[str], *, hostname: str, tty: bool, user: UserFacts
) -> tuple[str, ...]:
    """Return the program's variables: the engine's, then the image's and the client's."""
    base = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={hostname}"]
    if tty:
        base.append("TERM=xterm")
    merged = merge_environment(base, env)
    if not any(entry.startswith("HOME=") for entry in merged):
        merged = (*merged, f"HOME={user.home or '/'}")
    return merged


def working_directory(text: str) -> str:
    """Return an absolute, normalised path; empty means the root.

    :raises InvalidRequest: when it is relative, or leads out of the container (statement I1): the
        runtime enters no directory below /proc.
    """
    if not text:
        return "/"
    if not text.startswith("/"):
        raise InvalidRequest(
            f"the working directory '{text}' is invalid, it needs to be an absolute path"
        )
    if "\0" in text:
        raise InvalidRequest("the working directory contains a NUL byte")
    path = posixpath.normpath(text)
    path = "/" + path.lstrip("/")
    if f"{path}/".startswith("/proc/"):
        raise InvalidRequest(f"the working directory '{text}' is refused: it is below /proc")
    return path
