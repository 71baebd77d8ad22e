"""Devices that files of the host describe: the Container Device Interface.

A file names devices of one kind (``vendor.com/class``). Each device, and the file itself, has edits
of a container: variables, device nodes, mounts, hooks, groups. Vendors' tools write the files, such
as ``nvidia-ctk cdi generate``. A device is requested by its qualified name, which is
``vendor.com/class=name``.

Source: CNCF CDI, ``SPEC.md`` version 1.0.0. Of the directories, a later one wins. A device that two
files of one directory define is ambiguous, and cannot be requested. The files decide which programs
of the host run as root (hooks), so only the engine's user may be able to write them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from jaula import trusted_file
from jaula.errors import InvalidRequest, JaulaError
from jaula.spec.api_documents import DeviceRequest
from jaula.spec.runtime_spec import (
    Device,
    DeviceCgroup,
    Hook,
    Hooks,
    Linux,
    Mount,
    Process,
    Resources,
    Spec,
)

DRIVER = "cdi"
"""The driver of a :class:`~jaula.spec.api_documents.DeviceRequest` whose ids are qualified."""
_GPU = "gpu"
_GPU_KINDS = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
"""Kinds of GPUs by the name of their driver, in the order in which they are tried."""
_LIMIT = 8 << 20  # bytes of a file
_MAX_FILES = 256  # of a directory
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_KIND = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")
_VERSIONS = frozenset({"0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"})
_HOOKS = {
    "prestart": "prestart",
    "createRuntime": "create_runtime",
    "createContainer": "create_container",
    "startContainer": "start_container",
    "poststart": "poststart",
    "poststop": "poststop",
}


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    """Base of the documents: camelCase names; unknown ones are ignored."""


class DeviceNode(_Document, frozen=True):
    """A node in the container. Type and numbers are the host's if they are not given."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class BindMount(_Document, frozen=True):
    """A mount of a path of the host."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


class EditHook(_Document, frozen=True):
    """A hook of the runtime, by its name in the OCI specification."""

    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class ContainerEdits(_Document, frozen=True):
    """The changes of a container that one device needs."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[BindMount, ...] = ()
    hooks: tuple[EditHook, ...] = ()
    additional_gids: tuple[int, ...] = msgspec.field(name="additionalGids", default=())
    intel_rdt: Any = None
    net_devices: tuple[Any, ...] = ()


class _DeviceEntry(_Document, frozen=True):
    name: str
    container_edits: ContainerEdits = ContainerEdits()


class _File(_Document, frozen=True):
    cdi_version: str
    kind: str
    devices: tuple[_DeviceEntry, ...]
    container_edits: ContainerEdits = ContainerEdits()


class _Definition(NamedTuple):
    """A device: its own edits, and those of its file, which apply once."""

    file: str
    common: ContainerEdits
    own: ContainerEdits


def parse_file(data: bytes, path: str) -> tuple[str, dict[str, ContainerEdits], ContainerEdits]:
    """Return the kind of a file, its devices' edits by name, and the edits for all of them.

    :raises InvalidRequest: when the file is not valid.
    """
    try:
        if path.endswith(".json"):
            file = msgspec.json.decode(data, type=_File)
        else:
            file = msgspec.convert(_load_yaml(data), _File)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"CDI file {path}: {str(error)[:200]}") from None
    if file.cdi_version not in _VERSIONS:
        raise InvalidRequest(f"CDI file {path}: version {file.cdi_version[:20]!r} is not known")
    if not _KIND.fullmatch(file.kind):
        raise InvalidRequest(f"CDI file {path}: invalid kind {file.kind[:80]!r}")
    devices: dict[str, ContainerEdits] = {}
    for entry in file.devices:
        if not _NAME.fullmatch(entry.name):
            raise InvalidRequest(f"CDI file {path}: invalid device name {entry.name[:80]!r}")
        if entry.name in devices:
            raise InvalidRequest(f"CDI file {path}: device {entry.name} is defined twice")
        devices[entry.name] = entry.container_edits
    for edits in (file.container_edits, *devices.values()):
        _check(edits, path)
    return file.kind, devices, file.container_edits


def _load_yaml(data: bytes) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(data, Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from None


def _check(edits: ContainerEdits, path: str) -> None:
    """Check the values that the runtime does not check.

    :raises InvalidRequest: when one is not valid, or not supported.
    """
    places = [node.path for node in edits.device_nodes]
    places += [place for m in edits.mounts for place in (m.host_path, m.container_path)]
    places += [hook.path for hook in edits.hooks]
    for place in places:
        if not place.startswith("/") or "\0" in place or ".." in place.split("/"):
            raise InvalidRequest(f"CDI file {path}: {place[:80]!r} is not an absolute path")
    for entry in edits.env:
        if "=" not in entry[1:] or "\0" in entry:
            raise InvalidRequest(f"CDI file {path}: invalid variable {entry[:80]!r}")
    for hook in edits.hooks:
        if hook.hook_name not in _HOOKS:
            raise InvalidRequest(f"CDI file {path}: unknown hook {hook.hook_name[:40]!r}")
    for node in edits.device_nodes:
        if set(node.permissions) - set("rwm") or node.type not in ("", "b", "c", "u", "p"):
            raise InvalidRequest(f"CDI file {path}: invalid device node {node.path[:80]!r}")
    if edits.intel_rdt is not None or edits.net_devices:
        raise InvalidRequest(f"CDI file {path}: Intel RDT and network devices are not supported")


class Devices:
    """The devices that the files of the host define, and why other files could not be read."""

    def __init__(self, definitions: Mapping[str, _Definition], errors: Sequence[str]) -> None:
        self._definitions = definitions
        self.errors = tuple(errors)

    @property
    def names(self) -> tuple[str, ...]:
        """The qualified names, sorted; numbers are sorted as numbers."""
        return tuple(sorted(self._definitions, key=_natural))

    def select(self, requests: Iterable[DeviceRequest]) -> tuple[str, ...]:
        """Return the qualified names of the devices that requests name.

        :raises InvalidRequest: when no file defines a requested device.
        """
        return tuple(dict.fromkeys(name for r in requests for name in self._select(r)))

    def _select(self, request: DeviceRequest) -> Iterable[str]:
        if request.driver == DRIVER:
            return self._known(request.device_ids)
        kinds = [_GPU_KINDS[request.driver]] if request.driver else list(_GPU_KINDS.values())
        for kind in kinds:
            found = [name for name in self.names if name.startswith(f"{kind}=")]
            if found:
                break
        else:
            raise no_driver(request)
        if request.device_ids:
            return self._known(f"{kind}={identifier}" for identifier in request.device_ids)
        single = [name for name in found if not name.endswith("=all")]
        if request.count < 0:
            return (f"{kind}=all",) if f"{kind}=all" in found else single
        if request.count > len(single):
            raise InvalidRequest(
                f"{request.count} devices of kind {kind} are requested, and there are {len(single)}"
            )
        return single[: request.count]

    def _known(self, names: Iterable[str]) -> list[str]:
        requested = list(names)
        if unknown := [name for name in requested if name not in self._definitions]:
            reason = f" ({'; '.join(self.errors)})" if self.errors else ""
            raise InvalidRequest(
                f"CDI device injection failed: unresolvable CDI devices {', '.join(unknown)}"
                f"{reason}",
                hint="jaula info lists the devices of this host",
            )
        return requested

    def edits(self, names: Iterable[str]) -> tuple[ContainerEdits, ...]:
        """Return the edits of devices, those of each file once and before its devices'."""
        result: list[ContainerEdits] = []
        files: set[str] = set()
        for name in names:
            definition = self._definitions[name]
            if definition.file not in files:
                files.add(definition.file)
                result.append(definition.common)
            result.append(definition.own)
        return tuple(result)


def check_request(request: DeviceRequest) -> None:
    """Check the form of a request; whether the host has the devices is known at the start.

    :raises InvalidRequest: when no driver fits it.
    """
    if request.driver == DRIVER:
        for name in request.device_ids:
            kind, equals, device = name.partition("=")
            if not (equals and _KIND.fullmatch(kind) and _NAME.fullmatch(device)):
                raise InvalidRequest(
                    f"invalid CDI device name {name[:80]!r}", hint="vendor.com/class=name"
                )
        return
    capabilities = {word for words in request.capabilities for word in words}
    if request.driver not in ("", *_GPU_KINDS) or _GPU not in capabilities:
        raise no_driver(request)
    if request.device_ids and request.count:
        raise InvalidRequest("cannot set both Count and DeviceIDs on device request")


def no_driver(request: DeviceRequest) -> InvalidRequest:
    """Return Docker's error for a request that no driver can serve."""
    capabilities = "[" + " ".join(f"[{' '.join(c)}]" for c in request.capabilities) + "]"
    return InvalidRequest(
        f'could not select device driver "{request.driver}" with capabilities: {capabilities}',
        hint="devices are defined by CDI files in /etc/cdi or /var/run/cdi",
    )


def read(directories: Sequence[str]) -> Devices:
    """Read all files of the directories. A file that cannot be read is an error of the result."""
    definitions: dict[str, _Definition] = {}
    errors: list[str] = []
    for directory in directories:
        found: dict[str, _Definition] = {}
        ambiguous: set[str] = set()
        for path in _files(directory):
            try:
                data = trusted_file.read(path, _LIMIT, "CDI file", required=False)
                if data is None:
                    continue
                kind, devices, common = parse_file(data, path)
            except JaulaError as error:
                errors.append(error.message)
                continue
            for name, own in devices.items():
                qualified = f"{kind}={name}"
                if qualified in found:
                    ambiguous.add(qualified)
                found[qualified] = _Definition(path, common, own)
        for name in sorted(ambiguous):
            errors.append(f"CDI device {name} is defined by two files in {directory}")
            del found[name]
            definitions.pop(name, None)
        definitions |= found
    return Devices(definitions, errors)


def _files(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    chosen = [name for name in names if name.endswith((".json", ".yaml"))]
    return [f"{directory}/{name}" for name in chosen[:_MAX_FILES]]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


# -- the spec ------------------------------------------------------------------------------------


def apply(spec: Spec, edits: Iterable[ContainerEdits]) -> Spec:
    """Return a spec with the edits of devices.

    Mounts of the host are not id-mapped: their owners are users of the host, and root inside has no
    right that other users do not have.

    :raises InvalidRequest: when the host does not have a device node.
    """
    for each in edits:
        spec = _apply(spec, each)
    return spec


def _apply(spec: Spec, edits: ContainerEdits) -> Spec:
    process, linux = spec.process or Process(cwd="/"), spec.linux or Linux()
    resources = linux.resources or Resources()
    nodes = {device.path: device for device in linux.devices}
    rules = list(resources.devices)
    for entry in edits.device_nodes:
        node = _node(entry)
        nodes[node.path] = node
        if node.type in ("b", "c"):
            rules.append(
                DeviceCgroup(
                    allow=True,
                    type=node.type,
                    major=node.major,
                    minor=node.minor,
                    access=entry.permissions or "rwm",
                )
            )
    variables = {entry.partition("=")[0]: entry for entry in (*process.env, *edits.env)}
    gids = dict.fromkeys((*process.user.additional_gids, *filter(None, edits.additional_gids)))
    replaced = {mount.container_path for mount in edits.mounts}
    mounts = [mount for mount in spec.mounts if mount.destination not in replaced]
    return msgspec.structs.replace(
        spec,
        process=msgspec.structs.replace(
            process,
            env=tuple(variables.values()),
            user=msgspec.structs.replace(process.user, additional_gids=tuple(gids)),
        ),
        mounts=(*mounts, *map(_mount, edits.mounts)),
        hooks=_with_hooks(spec.hooks or Hooks(), edits.hooks),
        linux=msgspec.structs.replace(
            linux,
            devices=tuple(nodes.values()),
            resources=msgspec.structs.replace(resources, devices=tuple(rules)),
        ),
    )


def _mount(mount: BindMount) -> Mount:
    options = mount.options or ("ro", "nosuid", "nodev", "bind")
    kind = mount.type or "bind"
    if kind == "bind" and not {"bind", "rbind"} & set(options):
        options = (*options, "bind")
    return Mount(mount.container_path, mount.host_path, kind, options)


def _node(entry: DeviceNode) -> Device:
    kind, major, minor = entry.type, entry.major, entry.minor
    if not kind or major is None or minor is None:
        path = entry.host_path or entry.path
        try:
            status = os.stat(path)
        except OSError as error:
            raise InvalidRequest(
                f"CDI device injection failed: {path}: {(error.strerror or '').lower()}"
            ) from None
        kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "")
        if not kind:
            raise InvalidRequest(f"CDI device injection failed: {path} is not a device node")
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return Device(
        path=entry.path,
        type=kind,
        major=major,
        minor=minor,
        file_mode=0o666 if entry.file_mode is None else entry.file_mode,
        uid=entry.uid or 0,
        gid=entry.gid or 0,
    )


def _with_hooks(hooks: Hooks, edits: Sequence[EditHook]) -> Hooks | None:
    for edit in edits:
        field = _HOOKS[edit.hook_name]
        hook = Hook(edit.path, edit.args, edit.env or None, edit.timeout)
        hooks = msgspec.structs.replace(hooks, **{field: (*getattr(hooks, field), hook)})
    return None if hooks == Hooks() else hooks
