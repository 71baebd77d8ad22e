"""Decide what becomes of each object of a source. Pure.

An object that was taken over before is recognized by the label :data:`ORIGIN`, an image by its id.
An object is taken over only if everything that it needs is taken over or exists.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.migrate_from.inventory import (
    CONTAINER,
    IMAGE,
    KINDS,
    NETWORK,
    SECRET,
    VOLUME,
    Inventory,
    Left,
    SourceContainer,
    SourceImage,
    SourceNetwork,
    SourceSecret,
    SourceVolume,
)

ORIGIN = "io.jaula.migrated-from"
"""The label of volumes, networks and containers that were taken over."""

PROJECT = "com.docker.compose.project"
COMPOSE_IMAGE = "com.docker.compose.image"

_IMAGE_RATE = 60 << 20  # bytes of layers in a second, measured
_TREE_RATE = 150 << 20  # bytes of volumes in a second, measured
_FILE_RATE = 4000  # files of volumes in a second, measured
_CONTAINER_TIME = 0.05  # seconds
_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock")
_HOST_PREFIXES = ("/proc", "/sys", "/dev")

Subnet = IPv4Network | IPv6Network


class Action(StrEnum):
    """The decision about an object."""

    TAKE = "take"
    PRESENT = "present"  # it was taken over before, or is the same
    USE = "use"  # another object with its name takes its place
    REFUSE = "refuse"
    LEAVE = "leave"  # it has no counterpart here


class OnConflict(StrEnum):
    """The answer to a name that another object has."""

    REFUSE = "refuse"
    RENAME = "rename"
    USE = "use"


class Options(msgspec.Struct, frozen=True):
    """The selection of objects to take over.

    ``filters`` are pairs of ``name``, ``label`` or ``project`` and a value.
    """

    kinds: tuple[str, ...] = KINDS
    filters: tuple[tuple[str, str], ...] = ()
    on_conflict: OnConflict = OnConflict.REFUSE
    suffix: str = ""  # of renamed objects
    allow_running: bool = False
    with_changes: bool = True
    new_subnets: bool = False
    pull_digests: bool = False


class TargetImage(msgspec.Struct, frozen=True):
    """An image of the target under one of its names."""

    id: str
    layers: tuple[str, ...] = ()


class TargetNetwork(msgspec.Struct, frozen=True):
    """A network of the target with its subnets."""

    labels: dict[str, str] = {}
    driver: str = ""
    subnets: tuple[str, ...] = ()


class Target(msgspec.Struct, frozen=True):
    """The state of the engine that takes over. Names are keys. ``free`` is bytes, -1: not known.

    ``interfaces`` are the links of the host with their subnets, if the engine is on this host.
    ``same_volumes`` are the volumes whose files are those of the source.
    """

    images: dict[str, TargetImage] = {}
    image_ids: frozenset[str] = frozenset()
    volumes: dict[str, dict[str, str]] = {}
    networks: dict[str, TargetNetwork] = {}
    secrets: frozenset[str] = frozenset()
    containers: dict[str, dict[str, str]] = {}
    interfaces: dict[str, tuple[str, ...]] = {}
    log_drivers: tuple[str, ...] = ()
    same_volumes: frozenset[str] = frozenset()
    free: int = -1
    is_rootless: bool = False


Object = SourceImage | SourceVolume | SourceNetwork | SourceSecret | SourceContainer | Left


class Item(msgspec.Struct, frozen=True):
    """One object and what becomes of it. ``key`` is its id in the source.

    ``becomes`` is its name here. ``reason`` explains a refusal. ``notes`` are what differs.
    """

    kind: str
    key: str
    name: str
    action: Action
    becomes: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()
    size: int = 0  # bytes to copy
    entries: int = 0  # files to copy

    @property
    def is_usable(self) -> bool:
        """Whether an object that needs this one can be taken over."""
        return self.action in (Action.TAKE, Action.PRESENT, Action.USE)


class Plan(msgspec.Struct, frozen=True):
    """The items in the order in which they are taken over. ``space`` is bytes on the disk.

    ``existing`` are objects that were not selected and exist in the target.
    """

    engine: str
    version: str
    root: str
    items: tuple[Item, ...]
    space: int
    free: int
    seconds: int
    existing: tuple[Item, ...] = ()

    @property
    def has_space(self) -> bool:
        return self.free < 0 or self.space <= self.free

    def selected(self, *actions: Action) -> list[Item]:
        """Return the items with one of these actions."""
        return [item for item in self.items if item.action in actions]


def make_plan(source: Inventory, target: Target, options: Options) -> Plan:
    """Return the plan. Pure.

    :raises InvalidRequest: when a filter is unknown.
    """
    selected = _select(source, options)
    planner = _Planner(source, target, options)
    for image in source.images:
        planner.add_if(image.source_id in selected[IMAGE], IMAGE, planner.image, image)
    for network in source.networks:
        planner.add_if(network.id in selected[NETWORK], NETWORK, planner.network, network)
    for volume in source.volumes:
        planner.add_if(volume.name in selected[VOLUME], VOLUME, planner.volume, volume)
    for secret in source.secrets:
        planner.add_if(secret.id in selected[SECRET], SECRET, planner.secret, secret)
    containers, cycle = in_order(source.containers)
    for container in containers:
        planner.add_if(container.id in selected[CONTAINER], CONTAINER, planner.container, container)
    for container in cycle:
        if container.id in selected[CONTAINER]:
            reason = "it needs a container that needs it"
            planner.items.append(planner.refused(CONTAINER, container.id, container.name, reason))
    if not options.filters:
        planner.items += [
            Item(left.kind, left.name, left.name, Action.LEAVE, reason=left.reason)
            for left in source.left
        ]
    taken = [item for item in planner.items if item.action is Action.TAKE]
    images = sum(item.size for item in taken if item.kind == IMAGE)
    trees = sum(item.size for item in taken if item.kind != IMAGE)
    files = sum(item.entries for item in taken)
    count = sum(item.kind == CONTAINER for item in taken)
    seconds = images / _IMAGE_RATE + trees / _TREE_RATE + files / _FILE_RATE
    return Plan(
        engine=source.engine,
        version=source.version,
        root=source.root,
        items=tuple(planner.items),
        space=2 * images + trees,  # an image is stored as received and unpacked
        free=target.free,
        seconds=round(seconds + count * _CONTAINER_TIME),
        existing=tuple(planner.existing),
    )


# -- selection ------------------------------------------------------------------------------------


def _select(source: Inventory, options: Options) -> dict[str, set[str]]:
    """Return the keys of the selected objects of each kind. Containers select what they need."""
    check = _matcher(options.filters)
    chosen: dict[str, set[str]] = {
        IMAGE: {i.source_id for i in source.images if check(i.tags or (i.title,), i.labels)},
        NETWORK: {n.id for n in source.networks if check((n.name,), n.request.labels)},
        VOLUME: {v.name for v in source.volumes if check((v.name,), v.labels)},
        SECRET: {s.id for s in source.secrets if check((s.name,), s.labels)},
        CONTAINER: {c.id for c in source.containers if check((c.name,), c.request.labels)},
    }
    by_name = {each.name: each for each in source.containers} | {
        each.id: each for each in source.containers
    }
    pending = [each for each in source.containers if each.id in chosen[CONTAINER]]
    while pending:
        container = pending.pop()
        chosen[IMAGE].add(container.image)
        chosen[VOLUME] |= {mount.name for mount in container.volumes}
        names = network_names(container)
        chosen[NETWORK] |= {n.id for n in source.networks if n.name in names or n.id in names}
        chosen[SECRET] |= {s.id for s in source.secrets if s.name in secret_names(container)}
        for ref in needed_containers(container):
            other = by_name.get(ref)
            if other is not None and other.id not in chosen[CONTAINER]:
                chosen[CONTAINER].add(other.id)
                pending.append(other)
    return {kind: chosen[kind] if kind in options.kinds else set() for kind in KINDS}


class _Matcher:
    def __init__(self, filters: Sequence[tuple[str, str]]) -> None:
        for key, _ in filters:
            if key not in ("name", "label", "project"):
                raise InvalidRequest(
                    f"invalid filter {key!r}", hint="filters are name=, label= and project="
                )
        self._filters = filters

    def __call__(self, names: Iterable[str], labels: Mapping[str, str]) -> bool:
        names = tuple(names)
        return all(self._fits(key, value, names, labels) for key, value in self._filters)

    @staticmethod
    def _fits(key: str, value: str, names: Sequence[str], labels: Mapping[str, str]) -> bool:
        if key == "name":
            return any(fnmatch.fnmatchcase(name, value) for name in names)
        if key == "project":
            return labels.get(PROJECT) == value
        name, equals, text = value.partition("=")
        return name in labels and (not equals or labels[name] == text)


def _matcher(filters: Sequence[tuple[str, str]]) -> _Matcher:
    return _Matcher(filters)


def network_names(container: SourceContainer) -> set[str]:
    """Return the names, or ids, of the networks that a container has. Pure."""
    mode = container.request.host_config.network_mode
    kind = mode.partition(":")[0]
    names = set(container.endpoints)
    if kind not in ("", "default", "bridge", "host", "none", "container"):
        names.add(mode)
    return names - {"bridge", "host", "none"}


def secret_names(container: SourceContainer) -> set[str]:
    """Return the names of the secrets of a container. Pure."""
    return {each.source for each in container.request.host_config.secrets}


def needed_containers(container: SourceContainer) -> list[str]:
    """Return the names or ids of the containers that a container needs at its creation. Pure."""
    host = container.request.host_config
    modes = (host.network_mode, host.ipc_mode, host.pid_mode, host.uts_mode, host.userns_mode)
    refs = [mode.partition(":")[2] for mode in modes if mode.startswith("container:")]
    refs += [entry.partition(":")[0] for entry in host.volumes_from]
    refs += [link.partition(":")[0] for link in host.links]
    refs += [link.partition(":")[0] for each in container.endpoints.values() for link in each.links]
    return list(dict.fromkeys(refs))


def in_order(
    containers: Sequence[SourceContainer],
) -> tuple[list[SourceContainer], list[SourceContainer]]:
    """Return the containers, each after those that it needs, and those in a cycle. Pure."""
    keys = {each.name: each.id for each in containers} | {each.id: each.id for each in containers}
    pending = sorted(containers, key=lambda each: (float(each.created or 0), each.name))
    ordered: list[SourceContainer] = []
    done: set[str] = set()
    while True:
        ready = [
            each
            for each in pending
            if all(keys.get(ref, "") in ("", *done) for ref in needed_containers(each))
        ]
        if not ready:
            return ordered, pending
        ordered += ready
        done |= {each.id for each in ready}
        pending = [each for each in pending if each.id not in done]


# -- decisions ------------------------------------------------------------------------------------


class _Planner:
    """Decides one object after the other, and keeps what it has decided."""

    def __init__(self, source: Inventory, target: Target, options: Options) -> None:
        self._source = source
        self._target = target
        self._options = options
        self.items: list[Item] = []
        self.existing: list[Item] = []
        self._layers = {layer for image in target.images.values() for layer in image.layers}
        self._by_key: dict[tuple[str, str], Item] = {}
        self._running = {
            mount.name: container.name
            for container in source.containers
            if container.is_running
            for mount in container.volumes
        }
        self._subnets = [
            (name, subnet)
            for name, network in target.networks.items()
            for subnet in _subnets(network.subnets)
        ]

    def add_if(self, is_selected: bool, kind: str, decide: object, each: object) -> None:
        """Decide about an object, and list it if it is selected."""
        assert callable(decide)
        item: Item = decide(each)
        if is_selected:
            self.items.append(item)
        elif item.action is Action.TAKE:
            item = msgspec.structs.replace(item, action=Action.REFUSE, reason="it is not selected")
        elif item.is_usable:
            self.existing.append(item)
        self._by_key[kind, item.key] = item
        if kind != IMAGE:
            self._by_key.setdefault((kind, item.name), item)

    def refused(self, kind: str, key: str, name: str, reason: str) -> Item:
        return Item(kind, key, name, Action.REFUSE, reason=reason)

    def _conflict(self, kind: str, key: str, name: str, what: str, remedy: str = "") -> Item | str:
        """Return the item of an object whose name is in use, or its other name."""
        rule = self._options.on_conflict
        if rule is OnConflict.USE:
            return Item(kind, key, name, Action.USE, name, reason=f"the existing {kind} is used")
        if rule is OnConflict.RENAME:
            return name + self._options.suffix
        advice = remedy or "remove it, or use --on-conflict rename or use"
        return self.refused(kind, key, name, f"{what}: {advice}")

    # -- images --

    def image(self, image: SourceImage) -> Item:
        size = self._image_size(image)
        notes = tuple(
            f"pulls {name}@{digest[:19]}…"
            if self._options.pull_digests
            else f"without the name {name}@{digest[:19]}…: --pull-digests gets its manifest"
            for name, _, digest in (each.partition("@") for each in image.digests)
        )
        taken: list[str] = []
        for tag in image.tags:
            known = self._target.images.get(tag)
            if known is None or _same_image(image, known):
                taken.append(tag)
                continue
            decided = self._conflict(
                IMAGE, image.source_id, tag, f"{tag} is another image here ({short(known.id)})"
            )
            if isinstance(decided, Item):
                if decided.action is Action.REFUSE:
                    return msgspec.structs.replace(decided, name=image.title)
                return decided
            other = self._target.images.get(decided)
            if other is not None and not _same_image(image, other):
                reason = f"{decided} is another image here: choose another --suffix"
                return self.refused(IMAGE, image.source_id, image.title, reason)
            taken.append(decided)
        present = (
            all(tag in self._target.images for tag in taken)
            if taken
            else image.id in self._target.image_ids
        )
        if present:
            action, size = Action.PRESENT, 0
        else:
            action = Action.TAKE
        becomes = ", ".join(taken) or short(image.source_id)
        return Item(IMAGE, image.source_id, image.title, action, becomes, "", notes, size)

    def _image_size(self, image: SourceImage) -> int:
        """Return the bytes of the layers that no image here or before has."""
        if not image.sizes:
            return 0 if image.layers and set(image.layers) <= self._layers else image.size
        size = 0
        for layer, layer_size in zip(image.layers, image.sizes, strict=True):
            if layer not in self._layers:
                size += layer_size
                self._layers.add(layer)
        return size

    # -- networks --

    def network(self, network: SourceNetwork) -> Item:
        name, request = network.name, network.request
        origin = self._source.origin(NETWORK, network.id)
        for other, existing in self._target.networks.items():
            if existing.labels.get(ORIGIN) == origin:
                return Item(NETWORK, network.id, name, Action.PRESENT, other)
        known = self._target.networks.get(name)
        driver = request.driver or "bridge"
        if driver not in ("bridge", "macvlan", "ipvlan") and not request.config_only:
            return self.refused(NETWORK, network.id, name, f"jaula has no driver {driver}")
        if request.ipam is not None and request.ipam.driver not in ("", "default"):
            reason = f"jaula has no IPAM driver {request.ipam.driver}"
            return self.refused(NETWORK, network.id, name, reason)
        subnets = tuple(pool.subnet for pool in request.ipam.config) if request.ipam else ()
        if known is not None:
            same = (known.driver or "bridge") == driver and set(known.subnets) == set(subnets)
            if same and ORIGIN not in known.labels:
                return Item(NETWORK, network.id, name, Action.PRESENT, name)
            decided = self._conflict(NETWORK, network.id, name, "another network has its name")
            if isinstance(decided, Item):
                return decided
            if decided in self._target.networks:
                reason = f"{decided} exists too: choose another --suffix"
                return self.refused(NETWORK, network.id, name, reason)
            name = decided
        notes = []
        problem = self._address_problem(network, subnets, driver)
        if problem and self._options.new_subnets:
            notes.append(f"gets another subnet ({problem}); fixed addresses are dropped")
        elif problem:
            return self.refused(NETWORK, network.id, network.name, problem)
        else:
            self._subnets += [(name, subnet) for subnet in _subnets(subnets)]
        return Item(NETWORK, network.id, network.name, Action.TAKE, name, "", tuple(notes))

    def _address_problem(self, network: SourceNetwork, subnets: Sequence[str], driver: str) -> str:
        if driver != "bridge" or network.request.config_only:
            return ""
        if network.bridge in self._target.interfaces:
            return (
                f"its bridge {network.bridge} still exists: stop {self._source.engine} and"
                f" `ip link del {network.bridge}`, or use --new-subnets"
            )
        for subnet in _subnets(subnets):
            for name, other in self._subnets:
                if _overlap(subnet, other):
                    return f"{subnet} overlaps network {name}: use --new-subnets"
            for interface, texts in self._target.interfaces.items():
                if any(_overlap(subnet, other) for other in _subnets(texts)):
                    return f"{subnet} overlaps the addresses of {interface}: use --new-subnets"
        return ""

    # -- volumes --

    def volume(self, volume: SourceVolume) -> Item:
        name = volume.name
        origin = self._source.origin(VOLUME, name)
        if volume.driver not in ("", "local"):
            return self.refused(VOLUME, name, name, f"jaula has no volume driver {volume.driver}")
        if volume.unreadable:
            return self.refused(VOLUME, name, name, volume.unreadable)
        for other, labels in self._target.volumes.items():
            if labels.get(ORIGIN) == origin:
                return Item(VOLUME, name, name, Action.PRESENT, other)
        becomes = name
        if name in self._target.volumes:
            if name in self._target.same_volumes:
                return Item(VOLUME, name, name, Action.PRESENT, name, notes=("same files",))
            decided = self._conflict(VOLUME, name, name, "another volume has its name")
            if isinstance(decided, Item):
                return decided
            if decided in self._target.volumes:
                reason = f"{decided} exists too: choose another --suffix"
                return self.refused(VOLUME, name, name, reason)
            becomes = decided
        notes = []
        if volume.options:
            notes.append(f"mounts {volume.options.get('device') or 'by its options'}; no files")
        elif name in self._running:
            container = self._running[name]
            if not self._options.allow_running:
                return self.refused(
                    VOLUME, name, name, f"{container} runs: stop it, or use --allow-running"
                )
            notes.append(f"{container} runs: its files may be inconsistent")
        return Item(
            VOLUME, name, name, Action.TAKE, becomes, "", tuple(notes), volume.size, volume.entries
        )

    # -- secrets --

    def secret(self, secret: SourceSecret) -> Item:
        if secret.name in self._target.secrets:
            return Item(SECRET, secret.id, secret.name, Action.PRESENT, secret.name)
        if not secret.is_readable:
            return self.refused(
                SECRET, secret.id, secret.name, "the source does not give its content away"
            )
        return Item(SECRET, secret.id, secret.name, Action.TAKE, secret.name)

    # -- containers --

    def container(self, container: SourceContainer) -> Item:
        name = becomes = container.name
        origin = self._source.origin(CONTAINER, container.id)
        for other, labels in self._target.containers.items():
            if labels.get(ORIGIN) == origin and not other.startswith(TEMPORARY):
                return Item(CONTAINER, container.id, name, Action.PRESENT, other)
        if reason := container.refusal or self._container_problem(container):
            return self.refused(CONTAINER, container.id, name, reason)
        if name in self._target.containers:
            decided = self._conflict(
                CONTAINER, container.id, name, "another container has its name"
            )
            if isinstance(decided, Item):
                return decided
            if decided in self._target.containers:
                reason = f"{decided} exists too: choose another --suffix"
                return self.refused(CONTAINER, container.id, name, reason)
            becomes = decided
        notes = [*container.notes, *_differences(container)]
        size = 0
        if not self._options.with_changes:
            notes.append("without its own files")
        elif container.no_changes:
            notes.append(f"without its own files: {container.no_changes}")
        else:
            size = container.changed
        if container.is_running:
            notes.append("runs; the new one is created, not started")
        return Item(CONTAINER, container.id, name, Action.TAKE, becomes, "", tuple(notes), size)

    def _container_problem(self, container: SourceContainer) -> str:
        host = container.request.host_config
        if container.is_running and self._options.with_changes and not self._options.allow_running:
            return "it runs: stop it, or use --allow-running"
        driver = host.log_config.type
        if driver and self._target.log_drivers and driver not in self._target.log_drivers:
            return f"jaula has no log driver {driver}"
        image = self._by_key.get((IMAGE, container.image))
        if image is None or not image.is_usable:
            return f"its image {short(container.image)} is not taken over{_because(image)}"
        for network in sorted(network_names(container)):
            item = self._by_key.get((NETWORK, network))
            if item is None and network in self._target.networks:
                continue
            if item is None or not item.is_usable:
                return f"its network {network} is not taken over{_because(item)}"
        for mount in container.volumes:
            item = self._by_key.get((VOLUME, mount.name))
            if item is None or not item.is_usable:
                return f"its volume {mount.name[:20]} is not taken over{_because(item)}"
        for secret in sorted(secret_names(container)):
            item = self._by_key.get((SECRET, secret))
            if item is None or not item.is_usable:
                return f"its secret {secret} is not taken over{_because(item)}"
        for ref in needed_containers(container):
            item = self._by_key.get((CONTAINER, ref))
            if item is None or not item.is_usable:
                return f"it needs container {ref[:20]}, which is not taken over{_because(item)}"
        return ""


TEMPORARY = "migrate-from-"
"""The prefix of the name of a container that is not complete."""


def _because(item: Item | None) -> str:
    return f" ({item.reason})" if item is not None and item.reason else ""


def short(id: str) -> str:
    """Return the first twelve digits of an id. Pure."""
    return id.removeprefix("sha256:")[:12]


def _same_image(image: SourceImage, known: TargetImage) -> bool:
    return known.id == image.id if image.id else known.layers == image.layers


def _subnets(texts: Iterable[str]) -> list[Subnet]:
    """Return the valid subnets; the engine refuses the others."""
    subnets = []
    for text in texts:
        try:
            subnets.append(ip_network(text, strict=False))
        except ValueError:
            continue
    return subnets


def _overlap(one: Subnet, other: Subnet) -> bool:
    return one.version == other.version and one.overlaps(other)


def _differences(container: SourceContainer) -> Iterator[str]:
    """Yield in what a container behaves otherwise than in docker (docs/differences.md)."""
    host = container.request.host_config
    if host.privileged and host.userns_mode != "host":
        yield "privileged in a user namespace of its own; docker's is --userns=host"
    sources = [bind.partition(":")[0] for bind in host.binds if bind.startswith("/")]
    sources += [mount.source for mount in host.mounts if mount.type == "bind"]
    if any(source in _SOCKETS for source in sources):
        yield "mounts the old engine's socket; jaula's is --mount type=engine-socket"
    if system := [s for s in sources if s.startswith(_HOST_PREFIXES) or s == "/"]:
        yield f"owners in {', '.join(sorted(set(system)))} are not mapped"
    if host.network_mode == "host":
        yield "ports below 1024 need net.ipv4.ip_unprivileged_port_start"
    if host.runtime:
        yield f"needs a runtime {host.runtime} in jaula's settings"
    if host.pid_mode == "host" or host.ipc_mode == "host":
        yield "has no power over processes of the host without --userns=host"
    if host.restart_policy.name in ("always", "unless-stopped"):
        yield f"restarts {host.restart_policy.name} once it is started"
