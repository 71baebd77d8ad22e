"""Decide a change of a container that exists (``jaula edit``): what it has afterwards. Pure.

The result is a value from which the change is authorized, carried out and recorded.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import msgspec

from jaula.engine.containers.update import Update, merge_limits
from jaula.engine.model.container import LIVE
from jaula.engine.networks import endpoints, port_bindings
from jaula.engine.oci_spec import spec_resources
from jaula.engine.volumes import mount_spec
from jaula.errors import Conflict, InvalidRequest
from jaula.spec import run_options
from jaula.spec.api_documents import (
    ContainerCreate,
    ContainerEdit,
    ContainerUpdate,
    HostConfig,
    Mount,
)
from jaula.spec.runtime_spec import Resources
from jaula.state.container_records import ENGINE_SOCKET, IMAGE_MOUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jaula.engine.oci_spec.inputs import HostFacts
    from jaula.spec.api_documents import PortBinding
    from jaula.spec.endpoint_record import PublishedPort
    from jaula.state.container_records import (
        ContainerRecord,
        MountRecord,
        MountRequest,
        PortMapping,
        ResolvedRequest,
    )

Bindings = dict[str, tuple["PortBinding", ...]]
_Item = TypeVar("_Item")


class Edit(NamedTuple):
    """A decided change: the request afterwards, and the steps of a running container."""

    body: ContainerCreate
    resolved: ResolvedRequest
    mounts: tuple[MountRequest, ...]
    unmounted: tuple[MountRecord, ...]
    ports: tuple[PortMapping, ...]
    unpublished: tuple[PublishedPort, ...]
    limits: Update | None
    removed_limits: tuple[str, ...]  # their names in the record
    warnings: tuple[str, ...]
    changes: tuple[str, ...]  # in words

    @property
    def changes_ports(self) -> bool:
        """Whether published ports are added or removed."""
        return bool(self.ports or self.unpublished)


def version(record: ContainerRecord) -> str:
    """Return a hash of everything that an edit may change."""
    networks = endpoints.settings_of(record)
    state = (record.body, record.mounts, networks)
    text = msgspec.json.encode(state, order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]


def document(record: ContainerRecord) -> dict[str, Any]:
    """Return what can be edited, as the API shows it."""
    host = limits = record.host_config
    unset = ContainerUpdate()
    return {
        "Version": version(record),
        "Name": record.name,
        "PortBindings": msgspec.to_builtins(host.port_bindings),
        "Mounts": [
            {
                "Type": mount.type,
                "Source": mount.name if mount.type == "volume" else mount.source,
                "Target": mount.destination,
                "ReadOnly": mount.read_only,
            }
            for mount in record.mounts
        ],
        "Networks": list(endpoints.settings_of(record)),
        "RestartPolicy": msgspec.to_builtins(host.restart_policy),
        "Limits": {
            name: value
            for name in _LIMITS
            if (value := getattr(limits, _FIELDS[name])) != getattr(unset, _FIELDS[name])
        },
        "Labels": record.body.labels,
        "Healthcheck": msgspec.to_builtins(record.body.healthcheck),
    }


_LIMITS = tuple(run_options.BY_NAME[name].member for name in run_options.LIMIT_NAMES)
_FIELDS = {
    encoded: name
    for name, encoded in zip(
        ContainerUpdate.__struct_fields__, ContainerUpdate.__struct_encode_fields__, strict=True
    )
}


def decide(
    record: ContainerRecord,
    edit: ContainerEdit,
    host: HostFacts,
    *,
    is_engine_socket: Callable[[str], bool] = lambda path: False,
) -> Edit:
    """Return the change of a container.

    :raises Conflict: when the container has changed since ``edit.version``, or is of a pod.
    :raises InvalidRequest: when the change is not valid, or changes nothing.
    """
    if record.in_pod:
        raise Conflict(
            f"container {record.name} is of a pod, which the client of the CRI changes",
            hint="change the pod",
        )
    if edit.version and edit.version != version(record):
        raise Conflict(
            f"container {record.name} was changed by another client meanwhile",
            hint="read it again, and repeat the change",
        )
    networks = endpoints.settings_of(record)
    host_config = record.body.host_config
    bindings, unpublished = _without_ports(record, edit.unpublish)
    ports = port_bindings.port_mappings(_with_ports({}, edit.publish))
    bindings = _with_bindings(bindings, edit.publish)
    if ports or unpublished or edit.unpublish:
        _check_ports(record)
    unmounted = _mounts_at(record, edit.unmount)
    mounts = mount_spec.mount_requests(
        ContainerCreate(host_config=HostConfig(mounts=edit.mounts, binds=edit.binds)),
        is_engine_socket,
    )
    _check_mounts(record, mounts, unmounted)
    destinations = {mount.destination for mount in unmounted}
    host_config = _without_mounts(host_config, destinations)
    removed_labels = frozenset(edit.remove_labels)
    labels = {k: v for k, v in record.body.labels.items() if k not in removed_labels}
    for name in edit.remove_labels:
        if name not in record.body.labels:
            raise InvalidRequest(f"container {record.name} has no label {name}")
    for name in edit.disconnect:
        if name not in networks:
            raise InvalidRequest(f"container {record.name} is not connected to network {name}")
    body = msgspec.structs.replace(
        record.body,
        labels=labels | edit.labels,
        volumes={k: v for k, v in record.body.volumes.items() if k not in destinations},
        exposed_ports=record.body.exposed_ports | {port: {} for port in edit.publish},
        healthcheck=edit.healthcheck or record.body.healthcheck,
        host_config=msgspec.structs.replace(
            host_config,
            port_bindings=bindings,
            mounts=(*host_config.mounts, *edit.mounts),
            binds=(*host_config.binds, *edit.binds),
        ),
    )
    kept = tuple(r for r in record.resolved.mounts if r.mount.destination not in destinations)
    resolved = msgspec.structs.replace(
        record.resolved,
        mounts=(*kept, *mounts),
        ports=port_bindings.port_mappings(body),
    )
    changed = msgspec.structs.replace(record, body=body, resolved_request=resolved)
    limits, removed = None, _removed_limits(record, edit)
    if edit.update != ContainerUpdate() or removed:
        limits = merge_limits(_without_limits(changed, removed), edit.update, host)
        body, resolved = limits.body, limits.resolved
    if limits is not None and removed:
        written = spec_resources.reset(
            limits.limits or Resources(), removed, body.host_config, host
        )
        limits = limits._replace(limits=written)
    changes = tuple(_words(edit, unmounted))
    if not changes:
        raise InvalidRequest("the edit changes nothing")
    warnings = limits.warnings if limits else ()
    return Edit(
        body, resolved, mounts, unmounted, ports, unpublished, limits, removed, warnings, changes
    )


# -- limits --------------------------------------------------------------------------------------


def _removed_limits(record: ContainerRecord, edit: ContainerEdit) -> tuple[str, ...]:
    """Return the names, in the record, of the limits that an edit removes.

    A limit of memory and swap ends with that of memory, unless the edit sets another one.

    :raises InvalidRequest: when the container does not have one of them.
    """
    limits, unset = record.host_config, ContainerUpdate()
    names = []
    for encoded in edit.remove_limits:
        if encoded not in _LIMITS:
            raise InvalidRequest(f"{encoded!r} is not one of {', '.join(_LIMITS)}")
        name = _FIELDS[encoded]
        if getattr(limits, name) == getattr(unset, name):
            raise InvalidRequest(f"container {record.name} has no limit {encoded}")
        if getattr(edit.update, name) != getattr(unset, name):
            raise InvalidRequest(f"the edit sets and removes the limit {encoded}")
        names.append(name)
    if "blkio_weight" in names and record.status in LIVE:
        raise InvalidRequest(
            "BlkioWeight cannot be removed while the container runs",
            hint="give another value, or stop the container first",
        )
    if "memory" in names and limits.memory_swap and not edit.update.memory_swap:
        names.append("memory_swap")
    return tuple(dict.fromkeys(names))


def _without_limits(record: ContainerRecord, names: Iterable[str]) -> ContainerRecord:
    unset = ContainerUpdate()
    values = {name: getattr(unset, name) for name in names}
    body = record.body
    return msgspec.structs.replace(
        record,
        body=msgspec.structs.replace(
            body, host_config=msgspec.structs.replace(body.host_config, **values)
        ),
    )


# -- ports ---------------------------------------------------------------------------------------


def _check_ports(record: ContainerRecord) -> None:
    net = record.resolved.namespaces.net
    if net.host or net.container:
        other = "the host" if net.host else "another container"
        raise InvalidRequest(
            f"container {record.name} has the network of {other}, and publishes no ports itself"
        )
    if record.body.host_config.profile == "honeypot":
        raise InvalidRequest("the ports of a honeypot cannot be changed while it exists")


def _with_ports(present: Bindings, added: Bindings) -> ContainerCreate:
    host = HostConfig(port_bindings=_with_bindings(present, added))
    return ContainerCreate(host_config=host)


def _with_bindings(present: Bindings, added: Bindings) -> Bindings:
    """Return bindings with others, each once.

    :raises InvalidRequest: when the container has one of them, or there are too many.
    """
    port_bindings.check_number(sum(map(len, added.values())))
    result = {key: list(bindings) for key, bindings in present.items()}
    known = {key: set(bindings) for key, bindings in present.items()}
    for text, bindings in added.items():
        port, protocol = port_bindings.parse_port(text)
        key = f"{port}/{protocol}"
        for binding in bindings:
            own = known.setdefault(key, set())
            if binding.host_port not in ("", "0") and binding in own:
                raise InvalidRequest(f"port {_port_words(key, binding)} is published already")
            own.add(binding)
            result.setdefault(key, []).append(binding)
    return {key: tuple(bindings) for key, bindings in result.items()}


def _without_ports(
    record: ContainerRecord, removed: Bindings
) -> tuple[Bindings, tuple[PublishedPort, ...]]:
    """Return the bindings without others, and the published ports that end with them.

    :raises InvalidRequest: when a port is not published.
    """
    bindings = dict(record.body.host_config.port_bindings)
    live: defaultdict[str, _PortIndex[PublishedPort]] = defaultdict(_PortIndex)
    for each in record.ports:
        live[f"{each.container_port}/{each.protocol}"].add(
            each, each.host_ip, (_ANY, str(each.host_port))
        )
    requested: dict[str, _PortIndex[PortBinding]] = {}
    ended: list[PublishedPort] = []
    for text, requests in removed.items():
        port, protocol = port_bindings.parse_port(text)
        key = f"{port}/{protocol}"
        if requests and key not in requested:
            requested[key] = _binding_index(bindings.get(key, ()))
        for request in requests:
            number = _ANY if request.host_port == "0" else request.host_port
            published = live[key].take(request.host_ip, number)
            if number == _ANY:
                matching = requested[key].take(request.host_ip, _ANY)
            else:
                matching = requested[key].take(request.host_ip, number, 1)
                if published and not matching:
                    matching = requested[key].take(request.host_ip, _CHOICE, 1)
            if not matching:
                what = _port_words(key, request)
                hint = None
                if published:
                    hint = "it was published by --publish-all"
                raise InvalidRequest(f"port {what} is not published", hint=hint)
            ended += published
    for key, left in requested.items():
        if left.items:
            bindings[key] = tuple(left.items.values())
        else:
            bindings.pop(key, None)
    return bindings, tuple(ended)


_ANY = ""  # each host port
_CHOICE = None  # a host port that the engine chooses


class _PortIndex(Generic[_Item]):
    """Items by host address and host port, each taken once; all of them in linear time."""

    def __init__(self) -> None:
        self.items: dict[int, _Item] = {}  # those left, in their order
        self._added = 0
        self._places: defaultdict[tuple[str, str | None], deque[int]] = defaultdict(deque)

    def add(self, item: _Item, host_ip: str, host_ports: Iterable[str | None]) -> None:
        self.items[self._added] = item
        for address in {host_ip, ""}:
            for host_port in host_ports:
                self._places[address, host_port].append(self._added)
        self._added += 1

    def take(self, host_ip: str, host_port: str | None, most: int | None = None) -> list[_Item]:
        """Take the items of an address, or of each if it is empty; the first ``most`` of them."""
        places = self._places.get((host_ip, host_port), deque())
        taken: list[_Item] = []
        while places and len(taken) != most:
            place = places.popleft()
            if place in self.items:
                taken.append(self.items.pop(place))
        return taken


def _binding_index(bindings: Iterable[PortBinding]) -> _PortIndex[PortBinding]:
    result: _PortIndex[PortBinding] = _PortIndex()
    for binding in bindings:
        number = binding.host_port
        is_choice = number in ("", "0") or "-" in number
        result.add(binding, binding.host_ip, {_ANY, number, *((_CHOICE,) if is_choice else ())})
    return result


def _port_words(key: str, binding: PortBinding) -> str:
    address = f"{binding.host_ip}:" if binding.host_ip else ""
    return f"{address}{binding.host_port}:{key}" if address or binding.host_port else key


# -- mounts --------------------------------------------------------------------------------------


def _mounts_at(record: ContainerRecord, paths: Iterable[str]) -> tuple[MountRecord, ...]:
    """Return the mounts at some paths, each once.

    :raises InvalidRequest: when there is none at a path, or it cannot be removed.
    """
    present = {mount.destination: mount for mount in record.mounts}
    found = {}
    for path in paths:
        destination = mount_spec.destination(path)
        mount = present.get(destination)
        if mount is None:
            raise InvalidRequest(f"container {record.name} has no mount at {path}")
        if mount.type not in ("bind", "volume", "tmpfs"):
            raise InvalidRequest(f"a mount of type {mount.type} cannot be removed: {path}")
        found[destination] = mount
    return tuple(found.values())


def _check_mounts(
    record: ContainerRecord, added: Iterable[MountRequest], removed: Iterable[MountRecord]
) -> None:
    gone = {mount.destination for mount in removed}
    present = {mount.destination for mount in record.mounts} - gone
    for request in added:
        mount = request.mount
        if mount.destination in present:
            raise InvalidRequest(f"Duplicate mount point: {mount.destination}")
        if mount.type in (IMAGE_MOUNT, ENGINE_SOCKET):
            raise InvalidRequest(
                f"a mount of type {mount.type} cannot be added to a container that exists",
                hint="bind, volume and tmpfs can",
            )
        if mount.shared:
            raise InvalidRequest(
                f"propagation {mount.propagation} cannot be added to a container that exists"
            )
    ordered = sorted(present)
    for mount in removed:
        directory = f"{mount.destination}/"
        place = bisect_left(ordered, directory)
        if place < len(ordered) and ordered[place].startswith(directory):
            raise InvalidRequest(
                f"the mount at {ordered[place]} is below {mount.destination}", hint="remove both"
            )


def _without_mounts(host: HostConfig, destinations: set[str]) -> HostConfig:
    """Return the configuration without the mounts at these destinations."""
    if not destinations:
        return host

    def kept(mount: Mount) -> bool:
        return mount_spec.destination(mount.target) not in destinations if mount.target else True

    return msgspec.structs.replace(
        host,
        binds=tuple(
            text
            for text in host.binds
            if mount_spec.destination(mount_spec.split_bind(text)[1]) not in destinations
        ),
        mounts=tuple(mount for mount in host.mounts if kept(mount)),
        tmpfs={
            path: options
            for path, options in host.tmpfs.items()
            if mount_spec.destination(path) not in destinations
        },
    )


# -- words ---------------------------------------------------------------------------------------


def _words(edit: ContainerEdit, unmounted: Iterable[MountRecord]) -> Iterable[str]:
    """Yield each change in words, for the audit log, the events and ``verify``."""
    for verb, ports in (("unpublish", edit.unpublish), ("publish", edit.publish)):
        for key, bindings in ports.items():
            yield from (f"{verb} {_port_words(key, binding)}" for binding in bindings)
    for mount in unmounted:
        yield f"unmount {mount.destination}"
    for added in edit.mounts:
        source = f" {added.source}" if added.source else ""
        yield f"mount {added.type}{source} at {added.target}{' ro' if added.read_only else ''}"
    yield from (f"mount {bind}" for bind in edit.binds)
    yield from (f"disconnect {name}" for name in edit.disconnect)
    yield from (f"connect {name}" for name in edit.connect)
    unset = ContainerUpdate()
    for name, encoded in zip(
        ContainerUpdate.__struct_fields__, ContainerUpdate.__struct_encode_fields__, strict=True
    ):
        value = getattr(edit.update, name)
        if value == getattr(unset, name):
            continue
        shown = value.name if name == "restart_policy" else value
        yield f"set {encoded}={shown}"
    yield from (f"remove limit {name}" for name in edit.remove_limits)
    yield from (f"label {name}={value}" for name, value in edit.labels.items())
    yield from (f"remove label {name}" for name in edit.remove_labels)
    if edit.healthcheck is not None:
        yield f"healthcheck {' '.join(edit.healthcheck.test)}".rstrip()
