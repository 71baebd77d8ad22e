"""Carry a plan out: create the objects in the target, each one completely or not at all.

Each object exists in the target when it is complete:

* An image has its names after all its layers are unpacked and compared with its diff ids.
* A volume is created together with its files by one request.
* A network and a secret are one request.
* A container is created under a temporary name, gets its files, and then its name.

So an interrupted run leaves nothing else than containers with a temporary name, which the next one
removes. What exists is not created again, so each run continues where another one has ended.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, Protocol

import msgspec

from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound
from jaula.features.migrate_from.inventory import (
    CONTAINER,
    IMAGE,
    NETWORK,
    SECRET,
    VOLUME,
    Inventory,
    Source,
    SourceContainer,
    SourceImage,
    SourceNetwork,
    SourceSecret,
    SourceVolume,
)
from jaula.features.migrate_from.migrate_plan import (
    COMPOSE_IMAGE,
    ORIGIN,
    TEMPORARY,
    Action,
    Item,
    Options,
    Plan,
    needed_containers,
    short,
)
from jaula.features.migrate_from.target_state import Api
from jaula.kernel import namespaces
from jaula.spec.api_documents import ContainerCreate, Mount
from jaula.spec.api_networks import EndpointSettings, NetworkingConfig

_BATCH = 4 << 30  # bytes of layers in one archive

Chunks = Iterable[bytes | memoryview]


class Outcome(msgspec.Struct, frozen=True):
    """The result of an item: ``error`` is empty if it was taken over."""

    item: Item
    error: str = ""
    warnings: tuple[str, ...] = ()


class Report(Protocol):
    """Shows the progress."""

    def begin(self, item: Item, count: int = 1) -> None:
        """Show that an item is being taken over, with ``count`` items in one archive."""

    def advance(self, count: int) -> None:
        """Show that ``count`` more bytes were sent."""

    def end(self, outcome: Outcome) -> None:
        """Show what became of an item."""


@contextmanager
def only_once(target: str) -> Iterator[None]:
    """Hold the lock of a takeover into the engine with the id ``target``.

    :raises Conflict: when another process has it.
    """
    is_root = os.geteuid() == 0 and namespaces.is_initial_userns()
    directory = "/run/lock" if is_root else os.environ.get("XDG_RUNTIME_DIR") or "/run/lock"
    name = hashlib.sha256(target.encode()).hexdigest()[:16]
    path = f"{directory}/jaula-migrate-from-{name}.lock"
    descriptor = _locked(path)
    try:
        yield
    finally:
        os.unlink(path)  # before the lock is released: see _locked
        os.close(descriptor)


def _locked(path: str) -> int:
    """Return a descriptor of the file at ``path``, which is locked.

    A holder removes the file. So a file that was opened before that is not the lock any more.

    :raises Conflict: when another process has the lock.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Conflict(f"cannot open the lock {path}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict(
                "another jaula migrate-from fills this engine", hint="wait until it has ended"
            ) from None
        os.close(descriptor)


class Executor:
    """Carries out one plan."""

    def __init__(
        self,
        api: Api,
        source: Source,
        inventory: Inventory,
        plan: Plan,
        options: Options,
        report: Report,
    ) -> None:
        self._api = api
        self._source = source
        self._inventory = inventory
        self._items = plan.items
        self._options = options
        self._report = report
        self._existing = plan.existing
        self._names = _Names((*plan.items, *plan.existing), inventory)
        self._failed: dict[tuple[str, str], str] = {}
        self.outcomes: list[Outcome] = []

    def run(self) -> None:
        """Take over each item of the plan that can be; ``outcomes`` has the results.

        An object that fails does not stop the others, except those that need it.
        """
        self._remove_incomplete()
        self._images()
        networks = {each.id: each for each in self._inventory.networks}
        volumes = {each.name: each for each in self._inventory.volumes}
        secrets = {each.id: each for each in self._inventory.secrets}
        containers = {each.id: each for each in self._inventory.containers}
        for item in self._items:
            if item.action is not Action.TAKE or item.kind == IMAGE:
                continue
            if item.kind == NETWORK:
                self._attempt(item, partial(self._network, item, networks[item.key]))
            elif item.kind == VOLUME:
                self._attempt(item, partial(self._volume, item, volumes[item.key]))
            elif item.kind == SECRET:
                self._attempt(item, partial(self._secret, secrets[item.key]))
            elif item.kind == CONTAINER:
                self._attempt(item, partial(self._container, item, containers[item.key]))

    def _attempt(self, item: Item, work: Callable[[], Sequence[str]]) -> None:
        self._report.begin(item)
        try:
            outcome = Outcome(item, warnings=tuple(work()))
        except (JaulaError, OSError) as error:
            outcome = Outcome(item, error=_text(error))
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        if outcome.error:
            self._failed[outcome.item.kind, outcome.item.key] = outcome.error
        self.outcomes.append(outcome)
        self._report.end(outcome)

    def _counted(self, chunks: Chunks) -> Iterator[bytes | memoryview]:
        """Return the chunks and report their sizes, after the first one has arrived.

        dockerd writes a whole archive to its disk before it sends a byte. The target would wait in
        vain for the body of a request that has begun.
        """
        iterator = iter(chunks)
        first = next(iterator, b"")
        return self._count(chain((first,), iterator))

    def _count(self, chunks: Chunks) -> Iterator[bytes | memoryview]:
        for chunk in chunks:
            yield chunk
            self._report.advance(len(chunk))

    def _remove_incomplete(self) -> None:
        """Remove the containers that an interrupted run has left."""
        prefix = self._inventory.origin(CONTAINER, "")
        for document in self._api.document("GET", "/containers/json", (("all", True),)):
            origin = (document.get("Labels") or {}).get(ORIGIN, "")
            name = document["Names"][0].removeprefix("/")
            if name.startswith(TEMPORARY) and origin.startswith(prefix):
                self._api.document("DELETE", f"/containers/{document['Id']}", (("force", True),))

    # -- images ----------------------------------------------------------------------------------

    def _images(self) -> None:
        images = {each.source_id: each for each in self._inventory.images}
        items = [each for each in self._items if each.kind == IMAGE]
        taken = [each for each in items if each.action is Action.TAKE]
        for batch in batches([(item, images[item.key]) for item in taken]):
            self._report.begin(batch[0][0], len(batch))
            try:
                self._load(batch)
            except (JaulaError, OSError) as error:
                if len(batch) == 1:
                    self._end(Outcome(batch[0][0], error=_text(error)))
                    continue
                for pair in batch:  # find the one that cannot be loaded
                    self._attempt(pair[0], partial(self._load, [pair]))
                continue
            for item, image in batch:
                self._end(Outcome(item, warnings=tuple(self._pull_digests(item, image))))
        for item in (*items, *(each for each in self._existing if each.kind == IMAGE)):
            if item.action in (Action.PRESENT, Action.USE):
                self._names.images[item.key] = self._image_id(item, images[item.key])

    def _load(self, batch: Sequence[tuple[Item, SourceImage]]) -> Sequence[str]:
        """Load images, give them their names, and check their ids.

        :raises InvalidRequest: when an image is not the one that was expected.
        """
        plain = all(item.becomes.split(", ") == list(image.tags) for item, image in batch)
        if plain or len(batch) == 1:
            images = [image for _, image in batch]
            answer = self._api.upload(
                "/images/load", (), self._counted(self._source.archive(images, tags=plain))
            )
            for document in answer:
                if "error" in document:
                    raise InvalidRequest(str(document["error"]))
            for item, image in batch:
                loaded = image.id or _loaded_id(answer, image)
                for name in () if plain or not image.tags else item.becomes.split(", "):
                    repository, _, tag = name.rpartition(":")
                    self._api.document(
                        "POST", f"/images/{loaded}/tag", (("repo", repository), ("tag", tag))
                    )
                self._check(image, loaded)
                self._names.images[item.key] = loaded
        else:
            for pair in batch:
                self._load([pair])
        return ()

    def _pull_digests(self, item: Item, image: SourceImage) -> Iterator[str]:
        """Pull the names with a digest; yield a warning for each that cannot be had.

        A registry sends the manifest, which the source does not keep. The layers exist.
        """
        for name in image.digests if self._options.pull_digests else ():
            try:
                self._api.pull(name)
                pulled = self._api.document("GET", f"/images/{name}/json")["Id"]
            except JaulaError as error:
                yield f"without the name {name}: {_text(error)}"
                continue
            if pulled != self._names.images[item.key]:
                yield f"{name} is another image ({short(pulled)})"

    def _check(self, image: SourceImage, loaded: str) -> None:
        document = self._api.document("GET", f"/images/{loaded}/json")
        layers = tuple(document["RootFS"].get("Layers") or ())
        if layers != image.layers or (image.id and document["Id"] != image.id):
            raise InvalidRequest(
                f"the source sent another image than {image.title}: its id is"
                f" {short(document['Id'])}, its layers are {', '.join(map(short, layers))}"
            )

    def _image_id(self, item: Item, image: SourceImage) -> str:
        reference = image.id if item.action is Action.PRESENT and image.id else item.name
        try:
            return str(self._api.document("GET", f"/images/{reference}/json")["Id"])
        except NotFound:
            return reference

    # -- networks, volumes, secrets --------------------------------------------------------------

    def _network(self, item: Item, network: SourceNetwork) -> Sequence[str]:
        request = network.request
        labels = request.labels | {ORIGIN: self._inventory.origin(NETWORK, network.id)}
        if item.notes and request.ipam is not None:  # another subnet
            request = msgspec.structs.replace(
                request, ipam=msgspec.structs.replace(request.ipam, config=())
            )
            self._names.renumbered.add(network.name)
        request = msgspec.structs.replace(
            request, name=item.becomes, labels=labels, check_duplicate=False
        )
        body = msgspec.to_builtins(request)
        self._api.document("POST", "/networks/create", body=_without_none(body))
        return ()

    def _volume(self, item: Item, volume: SourceVolume) -> Sequence[str]:
        labels = volume.labels | {ORIGIN: self._inventory.origin(VOLUME, volume.name)}
        if not volume.is_tree:
            body = {"Name": item.becomes, "DriverOpts": volume.options, "Labels": labels}
            self._api.document("POST", "/volumes/create", body=body)
            return ()
        query = (
            ("name", item.becomes),
            ("labels", msgspec.json.encode(labels).decode()),
            ("createdAt", volume.created),
        )
        self._api.upload("/jaula/volumes/import", query, self._counted(self._source.volume(volume)))
        return ()

    def _secret(self, secret: SourceSecret) -> Sequence[str]:
        content = base64.b64encode(self._source.secret(secret)).decode()
        body = {"Name": secret.name, "Labels": secret.labels, "Data": content}
        self._api.document("POST", "/secrets/create", body=body)
        return ()

    # -- containers ------------------------------------------------------------------------------

    def _container(self, item: Item, container: SourceContainer) -> Sequence[str]:
        self._check_needed(container)
        request = self._names.request(container, self._image_name(container))
        labels = request.labels | {ORIGIN: self._inventory.origin(CONTAINER, container.id)}
        request = msgspec.structs.replace(request, labels=labels)
        temporary = f"{TEMPORARY}{container.id[:12]}"
        body = _without_none(msgspec.to_builtins(request))
        created = self._api.document(
            "POST", "/containers/create", (("name", temporary),), _with_plain_mounts(body)
        )
        identity = created["Id"]
        try:
            chunks: Chunks = ()
            if self._options.with_changes and not container.no_changes:
                chunks = self._counted(self._source.changes(container))
            query = (("name", item.becomes), ("created", container.created))
            self._api.upload(f"/jaula/containers/{identity}/import", query, chunks)
        except BaseException:
            self._api.document("DELETE", f"/containers/{identity}", (("force", True),))
            raise
        self._names.containers[container.id] = self._names.containers[container.name] = identity
        return tuple(created.get("Warnings") or ())

    def _image_name(self, container: SourceContainer) -> str:
        """Return the name of the image in the request, or its id if it has the name no more."""
        identity = self._names.images[container.image]
        name = container.request.image
        try:
            if self._api.document("GET", f"/images/{name}/json")["Id"] == identity:
                return name
        except JaulaError:
            return identity
        return identity

    def _check_needed(self, container: SourceContainer) -> None:
        """Check that what the container needs was taken over.

        :raises NotFound: when it was not.
        """
        needed = [(IMAGE, container.image, "image")]
        needed += [(VOLUME, mount.name, "volume") for mount in container.volumes]
        networks = {network.name: network.id for network in self._inventory.networks}
        needed += [(NETWORK, networks.get(n, n), "network") for n in container.endpoints]
        ids = {each.name: each.id for each in self._inventory.containers}
        needed += [(CONTAINER, ids.get(n, n), "container") for n in needed_containers(container)]
        for kind, key, what in needed:
            if (kind, key) in self._failed:
                raise NotFound(f"its {what} {short(key)} was not taken over")


class _Names:
    """The names and ids in the target of everything that a container refers to."""

    def __init__(self, items: Sequence[Item], inventory: Inventory) -> None:
        self.images: dict[str, str] = {}
        self.containers: dict[str, str] = {}
        self.linked = {
            ref: item.becomes
            for item in items
            if item.kind == CONTAINER and item.is_usable
            for ref in (item.key, item.name)
        }  # by their names, which `inspect` shows
        self.renumbered = set[str]()  # networks with another subnet
        self._volumes = {i.key: i.becomes for i in items if i.kind == VOLUME}
        networks = {i.key: i.becomes for i in items if i.kind == NETWORK}
        self._networks = {
            ref: networks.get(network.id, network.name)
            for network in inventory.networks
            for ref in (network.id, network.name)
        }
        for item in items:
            if item.kind == CONTAINER and item.action in (Action.PRESENT, Action.USE):
                self.containers[item.key] = self.containers[item.name] = item.becomes

    def request(self, container: SourceContainer, image: str) -> ContainerCreate:
        """Return the create request of a container with the names of the target."""
        request, host = container.request, container.request.host_config
        host = msgspec.structs.replace(
            host,
            binds=tuple(map(self._bind, host.binds)),
            mounts=tuple(map(self._mount, host.mounts)),
            network_mode=self._mode(self._networks.get(host.network_mode, host.network_mode)),
            ipc_mode=self._mode(host.ipc_mode),
            pid_mode=self._mode(host.pid_mode),
            uts_mode=self._mode(host.uts_mode),
            userns_mode=self._mode(host.userns_mode),
            volumes_from=tuple(map(self._first, host.volumes_from)),
            links=tuple(map(self._link, host.links)),
        )
        endpoints = {
            self._networks.get(name, name): self._endpoint(name, settings)
            for name, settings in container.endpoints.items()
            if name not in ("host", "none")
        }
        if host.network_mode.startswith("container:"):
            endpoints = {}
        labels = request.labels
        if labels.get(COMPOSE_IMAGE) == container.image:
            labels = labels | {COMPOSE_IMAGE: self.images[container.image]}
        return msgspec.structs.replace(
            request,
            image=image,
            labels=labels,
            host_config=host,
            networking_config=NetworkingConfig(endpoints_config=endpoints),
        )

    def _endpoint(self, name: str, settings: EndpointSettings) -> EndpointSettings:
        links = tuple(map(self._link, settings.links))
        ipam = None if name in self.renumbered else settings.ipam_config
        return msgspec.structs.replace(settings, links=links, ipam_config=ipam)

    def _mode(self, mode: str) -> str:
        kind, colon, ref = mode.partition(":")
        return (
            f"container:{self.containers.get(ref, ref)}" if kind == "container" and colon else mode
        )

    def _first(self, text: str) -> str:
        """Return ``NAME:rest`` with the id of the container ``NAME``."""
        name, colon, rest = text.partition(":")
        return f"{self.containers.get(name, name)}{colon}{rest}"

    def _link(self, text: str) -> str:
        """Return ``NAME:alias`` with the name that the container ``NAME`` has here."""
        name, colon, alias = text.partition(":")
        return f"{self.linked.get(name, name)}{colon}{alias}"

    def _bind(self, text: str) -> str:
        source, colon, rest = text.partition(":")
        return f"{self._volumes.get(source, source)}{colon}{rest}" if colon else text

    def _mount(self, mount: Mount) -> Mount:
        if mount.type != "volume" or mount.source not in self._volumes:
            return mount
        return msgspec.structs.replace(mount, source=self._volumes[mount.source])


def batches(
    pairs: Sequence[tuple[Item, SourceImage]], limit: int = _BATCH
) -> Iterator[list[tuple[Item, SourceImage]]]:
    """Yield groups of images that share layers, so that a shared layer is sent once. Pure.

    A group has at most ``limit`` bytes of layers, or one image.
    """
    pending = list(pairs)
    while pending:
        group = [pending.pop(0)]
        layers = set(group[0][1].layers)
        size = group[0][0].size
        rest = []
        for item, image in pending:
            if layers & set(image.layers) and size + item.size <= limit:
                group.append((item, image))
                layers |= set(image.layers)
                size += item.size
            else:
                rest.append((item, image))
        pending = rest
        yield group


def _loaded_id(answer: Sequence[dict[str, object]], image: SourceImage) -> str:
    """Return the reference by which the image that was just loaded is found."""
    if image.tags:
        return image.tags[0]
    for document in answer:
        text = str(document.get("stream", "")).strip()
        if text.startswith("Loaded image ID: "):
            return text.removeprefix("Loaded image ID: ")
    raise InvalidRequest(f"the source sent no image for {image.title}")


def _without_none(value: object) -> object:
    """Return a document without members that are None, which mean absent."""
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_without_none(each) for each in value]
    return value


def _with_plain_mounts(body: Any) -> Any:
    """Return a create request whose mounts have no members that are empty, as clients send them."""
    host = body["HostConfig"]
    return body | {"HostConfig": host | {"Mounts": [_pruned(each) for each in host["Mounts"]]}}


def _pruned(document: dict[str, Any]) -> dict[str, Any]:
    pruned = {
        name: _pruned(each) if isinstance(each, dict) else each for name, each in document.items()
    }
    return {name: each for name, each in pruned.items() if each or isinstance(each, dict)}


def _text(error: JaulaError | OSError) -> str:
    if isinstance(error, JaulaError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
