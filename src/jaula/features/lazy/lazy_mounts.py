"""Layers that are mounted before they are whole: the engine's side of lazy servers.

1. A pull starts a server for the layers that have a TOC (:mod:`jaula.features.lazy.lazy_server`),
and
   mounts the metadata image of each one that the server can serve below ``<run>/lazy``, in the
   engine's mount namespace. The layer store has them from then on, under the names that the
   manifest of the pull gives them, so the image can be named.
2. When the server reports that a blob is whole, the blob is compared with its digest, copied into
   the blob store and extracted like any other. From then on the layer is its directory. The mount
   is removed later: a start may have resolved its path before, and containers that run keep their
   own.
3. If another program removes the directory of mount points, the mounts are detached: the kernel
   does so in all mount namespaces when their mount points are removed. The layers are mounted again
   for the next starts. Containers that run have mounts of their own. The sockets of the servers are
   below ``<root>``: an engine finds them also if the run directory was removed before its start.
4. If the server dies, another one is started with the same request and files. The next engine
   connects to the servers of the former one, and starts those that are gone, as after a reboot.
   The credentials of the pull are in memory only: a server that the next engine starts has none. If
   the registry denies it the rest, the layers have failed until the next pull from their repository
   brings credentials. The server goes on then with what it has.

The server is an unprivileged process. It is trusted as far as the digests of blob and layer confirm
its work. What a container reads before was compared with the TOC, whose digest is in the manifest.

A lazy layer belongs to a manifest's statement and to the repository that its bytes come from
(``origin``). A pull from another repository fetches the layer itself, whole: a registry that holds
bytes back or sends wrong ones cannot stop the image of another one.

``<root>/lazy/<id>`` is the directory of a server; ``<id>.json`` beside it is its request, and
``<id>.sock`` its socket.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from jaula.config import Paths, RegistryConfig
from jaula.errors import CorruptState, InvalidRequest, JaulaError, Unavailable
from jaula.features.lazy import lazy_protocol
from jaula.features.lazy.lazy_protocol import (
    MESSAGE_LIMIT,
    Command,
    LayerRequest,
    LayerState,
    Message,
    Request,
    Status,
)
from jaula.images.reference import Reference
from jaula.images.registry import toc
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.registry_hosts import Hosts
from jaula.images.store.blobs import BlobStore
from jaula.kernel import fuse, mounts
from jaula.kernel.openat2 import open_in_root
from jaula.kernel.syncfs import fsync_paths
from jaula.sandbox import start_sandbox
from jaula.sandbox.sandbox_limits import Limits, Rights
from jaula.sandbox.start_sandbox import Task
from jaula.spec.image_documents import Descriptor, diff_id_of
from jaula.storage.layers.chunk_index import StoredChunks
from jaula.storage.layers.layer_store import LayerInfo, LayerStore, LazyLayer
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from jaula.config import EngineConfig
    from jaula.storage.drivers.storage_driver import SnapshotDriver

MINIMUM = 1 << 20
"""Bytes of a layer. A smaller one is fetched whole, which takes as long as its TOC."""

_LAYERS_LIMIT = 100  # of one server
_PREPARE = 30.0  # seconds in which a server has to serve its first layers
_CONNECT = 20.0  # seconds until the first message: an interpreter starts
_UNMOUNT_DELAY = 90.0  # seconds; longer than a start may take
_USER_FILE_LIMIT = 1 << 20  # bytes, as the engine reads
_ROUND = 0.5  # seconds between two checks for cancellation
_CHECK = 2.0  # seconds between two checks whether another pull has stored a layer
_COPY = 1 << 20  # bytes that are copied at once
_RESTARTS = 10  # of a server in a row, without a layer that got whole
_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds before a dead server is started again
_LIMITS = Limits(memory=4 << 30, processor=0, descriptors=1024)
_READABLE = ("/etc", "/usr", "/lib", "/run/systemd/resolve", "/run/resolvconf", "/opt")
"""What a server reads beside its directory: certificates, the resolver's files, modules."""

_PENDING = ("SigPnd:", "ShdPnd:")  # proc_pid_status(5)
_SIGKILL = 1 << (signal.SIGKILL - 1)

_log = logging.getLogger("jaula.lazy")

EventSink = Callable[[str, str, dict[str, str]], None]
"""Is called with action, image and attributes of an event, from any thread."""


class _Server:
    """A lazy server, with its layers. ``connection`` and ``fuse`` are those of its process."""

    def __init__(self, directory: Path, request: Request) -> None:
        self.directory = directory
        self.request = request
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.fuse = -1
        self.process: subprocess.Popen[bytes] | None = None  # None: of a former engine
        self.states: dict[str, LayerState] = {}
        self.mounted: dict[str, Path] = {}  # mount points by name
        self.pending: set[str] = set()  # names of layers and blobs that are not stored yet
        self.denied: set[str] = set()  # those of them that wait for credentials
        self.resuming = 0  # credentials that the server has not used yet
        self.diff_ids = {layer.name: layer.diff_id for layer in request.layers}
        self.lock = threading.Lock()  # of changes of process, socket and mounts

    def update(self, states: Iterable[LayerState]) -> None:
        """Take over what the server states about its layers, and nothing about others."""
        digests = {layer.name: layer.layer.digest for layer in self.request.layers}
        for state in states:
            if digests.get(state.name) == state.digest:
                self.states[state.name] = state

    def forget_denials(self) -> None:
        """Expect that the layers which were denied get whole: the server has credentials."""
        for name in self.denied:
            state = self.states.get(name)
            if state is not None and state.denied:
                self.states[name] = msgspec.structs.replace(
                    state, status=Status.READY, denied=False
                )
        self.denied.clear()

    def release(self, names: Iterable[str]) -> None:
        """Tell the server that layers are not needed any more."""
        with suppress(OSError):
            self.connection.send(msgspec.json.encode(Command(tuple(names))))

    def kill(self) -> None:
        """Kill a process whose layers are not mounted; it may be stopped."""
        if self.process is not None:
            self.process.kill()

    def disconnect(self) -> None:
        """Close the connection. The process ends when nobody uses its files."""
        self.connection.close()
        if self.fuse >= 0:
            os.close(self.fuse)
            self.fuse = -1


def open_layers(
    config: EngineConfig, layers: LayerStore, snapshots: SnapshotDriver, *, rootless: bool
) -> LazyLayers:
    """Return the lazy layers of an engine, with those of its predecessor mounted.

    :raises InvalidRequest: when the engine cannot have any.
    """
    lazy = config.pull_mode == "lazy"
    if lazy and (rootless or snapshots.name != "overlay"):
        raise InvalidRequest(
            "pull-mode lazy needs the storage driver overlay and an engine that runs as root",
            hint="use pull-mode whole",
        )
    if lazy and layers.format == "verity":
        raise InvalidRequest(
            "pull-mode lazy is not possible with verity=on: a layer that is still fetched has no"
            " fs-verity",
            hint="use pull-mode whole, or erofs=on",
        )
    lazy_layers = LazyLayers(config.paths, layers, enabled=lazy)
    lazy_layers.adopt()
    return lazy_layers


class LazyLayers:
    """The lazy layers of one engine. Methods may be called from any thread."""

    def __init__(self, paths: Paths, layers: LayerStore, *, enabled: bool = True) -> None:
        """Without ``enabled`` no more pulls are lazy; layers of former ones are still completed."""
        self._enabled = enabled
        self._root = paths.root / "lazy"
        self._run = paths.lazy_run
        self._images = paths.images
        self._stored = StoredChunks(paths.chunk_index, paths.layers)
        self._layers = layers
        self._blobs: BlobStore | None = None
        self._sync: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._servers: list[_Server] = []
        self._closing = threading.Event()
        self.on_event: EventSink = lambda action, image, attributes: None
        layers.on_lazy_end = self._end

    # -- start of the engine --------------------------------------------------------------------

    def adopt(self) -> None:
        """Connect to the servers of a former engine or start them, and mount their layers again."""
        if not self._root.is_dir():
            return
        for path in self._run.glob("*.*"):
            if path.is_dir():
                with suppress(OSError):
                    path.rmdir()  # a mount point in the namespace of the former engine
        for leftover in (*self._root.glob("*.json.new"), *self._root.glob("*.erofs")):
            leftover.unlink()  # of an engine that was killed
        for directory in sorted(path for path in self._root.iterdir() if path.is_dir()):
            try:
                self._adopt(directory)
            except (OSError, JaulaError, msgspec.MsgspecError, UnicodeDecodeError) as error:
                _log.warning("the lazy server %s cannot go on: %s", directory.name, error)
                self._remove(directory)
        for pattern in ("*.json", "*.sock"):
            for path in self._root.glob(pattern):
                if not path.with_suffix("").is_dir():
                    path.unlink()

    def _adopt(self, directory: Path) -> None:
        """Connect to one server, or start it.

        :raises OSError: when that is not possible.
        """
        document = self._document(directory)
        request = msgspec.json.decode(document.read_bytes(), type=Request)
        server = _Server(directory, request)
        try:
            self._connect(server)
        except OSError:
            self._recover(server)
            missing = [each for each in request.layers if not self._is_stored(each)]
            if not missing:
                self._remove(directory)
                return
            _log.warning("the lazy server of %s is started again", request.image)
            request = msgspec.structs.replace(request, layers=tuple(missing))
            server = _Server(directory, request)
            self._spawn(server)
            self._connect(server)
        try:
            self._wait_prepared(server, lambda: None)
        except BaseException:
            self._abandon(server)
            raise
        self._listen_again(server)
        self._mount_all(server)
        self._servers.append(server)

    def _recover(self, server: _Server) -> None:
        """Store the layers that got whole while there was no engine."""
        for layer in server.request.layers:
            whole = server.directory / lazy_protocol.whole_name(layer.name)
            if self._is_stored(layer) or not whole.exists():
                continue
            try:
                self._store(server, layer, BlobStore(self._images))
            except (OSError, JaulaError) as error:
                _log.warning("layer %s is not recovered: %s", layer.diff_id, error)

    def _is_stored(self, layer: LayerRequest) -> bool:
        """Return whether nothing of a layer has to be fetched any more."""
        try:
            stored = (self._blob_directory() / layer.layer.digest.removeprefix("sha256:")).stat()
        except FileNotFoundError:
            return False
        return stored.st_size == layer.layer.size and self._layers.is_intact(layer.diff_id)

    def _blob_directory(self) -> Path:
        return self._images / "blobs" / "sha256"

    def attach(self, blobs: BlobStore, sync: Callable[[], None]) -> None:
        """Set the blob store; ``sync`` writes it to the disk. Follow the adopted servers."""
        self._blobs, self._sync = blobs, sync
        for server in self._servers:
            self._follow(server)

    def close(self) -> None:
        """Disconnect from all servers, which go on."""
        self._closing.set()
        with self._lock:
            servers, self._servers = self._servers, []
        for server in servers:
            with suppress(OSError):
                server.connection.shutdown(socket.SHUT_RDWR)

    # -- the run directory ------------------------------------------------------------------------

    def is_complete(self) -> bool:
        """Return whether the sockets and mounts of all servers are there."""
        with self._lock:
            servers = tuple(self._servers)
        return not any(map(self._lacks_files, servers))

    def _lacks_files(self, server: _Server) -> bool:
        paths = (self._socket_path(server.directory), *server.mounted.values())
        return not all(map(os.path.lexists, paths))

    def restore(self) -> None:
        """Make the sockets and mounts of all servers again that another program has removed."""
        with self._lock:
            servers = tuple(self._servers)
        for server in servers:
            with server.lock:  # else it is being started again, which makes them
                if not self._lacks_files(server):
                    continue
                self._listen_again(server)
                for name, target in tuple(server.mounted.items()):
                    state = server.states.get(name)
                    if target.exists() or (state and self._mount_or_skip(server, state)):
                        continue
                    if server.mounted.pop(name, None) is not None:
                        self._fail(server, name, "its mount was removed")

    def _listen_again(self, server: _Server) -> None:
        """Give a server another socket if the path of its own was removed.

        The server of an earlier version has it in the run directory.
        """
        if self._socket_path(server.directory).exists():
            return
        try:
            with self._listener(server) as listener:
                command = msgspec.json.encode(Command(listener=True))
                socket.send_fds(server.connection, [command], [listener.fileno()])
        except OSError as error:
            _log.warning("a lazy server has no socket for the next engine: %s", error)
        self._former_socket_path(server.directory).unlink(missing_ok=True)

    # -- pulls ----------------------------------------------------------------------------------

    def _resume(
        self, reference: Reference, credentials: Credentials, layers: Sequence[LayerRequest]
    ) -> set[str]:
        """Let servers go on that wait for credentials of a repository. Return their layers' names.

        The credentials are those that the registry has accepted for the manifest.
        """
        names = {layer.name for layer in layers}
        with self._lock:
            servers = tuple(self._servers)
        resumed = set()
        for server in servers:
            waits = server.denied & server.pending & names
            if not waits or server.request.origin != reference.full_repository:
                continue
            command = Command(credentials=credentials)
            server.resuming += 1
            try:
                server.connection.send(msgspec.json.encode(command))
            except OSError as error:  # it has died, and is started again without credentials
                _log.warning("a lazy server does not go on: %s", error)
                continue
            server.request = msgspec.structs.replace(server.request, credentials=credentials)
            server.forget_denials()
            for name in server.pending & names:
                self._layers.resume_lazy(name)
            resumed |= server.pending & names
        return resumed

    def begin(
        self,
        image: str,
        reference: Reference,
        registry: RegistryConfig,
        credentials: Credentials,
        candidates: Sequence[tuple[Descriptor, str]],
        cancel: Cancellation,
    ) -> set[str]:
        """Mount those of ``candidates`` (pairs of layer and diff id) that can be served.

        Return their names. All others have to be fetched; the log has the reasons. Layers whose
        server waits for credentials go on with what it has fetched before.

        The caller has pinned the layers and their blobs.
        """
        chosen = [
            LayerRequest(layer, diff_id)
            for layer, diff_id in candidates
            if layer.size >= MINIMUM and toc.format_of(layer) is not None
        ][:_LAYERS_LIMIT]
        if not chosen or not self._enabled or self._blobs is None:
            return set()
        resumed = self._resume(reference, credentials, chosen)
        chosen = [layer for layer in chosen if layer.name not in resumed]
        if not chosen:
            return resumed
        try:
            server = self._start(image, reference, registry, credentials, chosen)
            try:
                self._wait_prepared(server, cancel.check)
            except BaseException:
                server.kill()
                self._abandon(server)
                raise
        except (OSError, JaulaError) as error:
            cancel.check()
            _log.warning("%s is pulled whole: %s", image, error)
            return resumed
        self._mount_all(server)
        with self._lock:
            self._servers.append(server)
        self._follow(server)
        return resumed | set(server.mounted)

    def end_stored(self, layers: Iterable[tuple[Descriptor, str]]) -> None:
        """Use the directories of layers that a pull has stored whole, also of those that failed."""
        for descriptor, diff_id in layers:
            layer = LayerRequest(descriptor, diff_id)
            if self._layers.is_lazy(layer.name) and self._is_stored(layer):
                self._layers.end_lazy(layer.name)

    def _start(
        self,
        image: str,
        reference: Reference,
        registry: RegistryConfig,
        credentials: Credentials,
        layers: Sequence[LayerRequest],
    ) -> _Server:
        """Start a server.

        :raises OSError: when it cannot be started, or ends at once.
        """
        for parent in (self._root, self._run):
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = self._root / secrets.token_hex(8)
        directory.mkdir(mode=0o700)
        request = Request(image, reference, registry, credentials, tuple(layers))
        server = _Server(directory, request)
        try:
            self._write_request(server)
            self._spawn(server)
            self._connect(server)
        except BaseException:
            server.kill()
            server.disconnect()
            self._remove(directory)
            raise
        return server

    def _write_request(self, server: _Server) -> None:
        """Store a request without its credentials, for the next engine."""
        request = msgspec.structs.replace(server.request, credentials=Credentials())
        document = self._document(server.directory)
        temporary = document.with_name(f"{document.name}.new")
        flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC
        with open(temporary, "wb", opener=lambda path, _: os.open(path, flags, 0o600)) as file:
            file.write(msgspec.json.encode(request))
            file.flush()
            os.fdatasync(file.fileno())
        temporary.rename(document)
        fsync_paths(document.parent)

    def _spawn(self, server: _Server) -> None:
        """Start the process of a server, which listens on its socket.

        It gets its file system, which it may not mount itself, and a directory of its own.

        :raises OSError: when it cannot be started.
        :raises Unavailable: when an unprivileged process cannot contact the registry.
        """
        uid, gid = start_sandbox.ids()
        request = _complete(server.request)
        certificates = [each.security.certificates for each in request.endpoints]
        if any(each.clients for each in certificates):
            raise Unavailable("only the engine can read the key of a client certificate")
        readable = (*_READABLE, *(path for each in certificates for path in each.authorities))
        directory = os.open(server.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        descriptors = [directory]
        try:
            os.chown(directory, uid, gid)
            descriptors.append(os.memfd_create("request", os.MFD_CLOEXEC))
            with open(descriptors[-1], "wb", closefd=False) as file:
                file.write(msgspec.json.encode(request))
            descriptors += fuse.open_connection()
            with self._listener(server) as listener:
                process = start_sandbox.start(
                    Task("jaula-lazy", server.request.image, lazy_protocol.SERVER_FUNCTION),
                    limits=_LIMITS,
                    rights=Rights(
                        calls=("files", "network", "threads"),
                        read=tuple(filter(os.path.exists, readable)),
                        write=(f"/proc/self/fd/{directory}",),
                    ),
                    descriptors=[*descriptors, listener.fileno()],
                )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        server.process = process
        threading.Thread(target=process.wait, name="lazy-reaper", daemon=True).start()

    def _listener(self, server: _Server) -> socket.socket:
        """Return a new socket that listens on the path of a server.

        :raises OSError: when that is not possible.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with open_directory(self._root) as root:
                path = f"/proc/self/fd/{root}/{self._socket_path(server.directory).name}"
                Path(path).unlink(missing_ok=True)
                listener.bind(path)
            listener.listen(4)
        except BaseException:
            listener.close()
            raise
        return listener

    def _connect(self, server: _Server) -> None:
        """Connect to the process of a server.

        :raises OSError: when there is none, or it does not answer.
        """
        server.disconnect()
        server.connection = connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(_CONNECT)
            path = self._socket_path(server.directory)
            if not path.exists():
                path = self._former_socket_path(server.directory)
            with open_directory(path.parent) as parent:
                connection.connect(f"/proc/self/fd/{parent}/{path.name}")
            data, descriptors, *_ = socket.recv_fds(connection, MESSAGE_LIMIT, 1)
            if not data or not descriptors:
                raise ConnectionError("the lazy server has ended")
            connection.settimeout(None)
            server.fuse = descriptors[0]
            server.states = {}
            server.resuming = 0
            server.update(_decode(data).layers)
        except BaseException:
            server.disconnect()
            raise

    def _wait_prepared(self, server: _Server, check: Callable[[], None]) -> None:
        """Wait until the server has read every TOC. ``check`` is called often and may raise.

        :raises Unavailable: when it does not within some seconds.
        """
        end = monotonic() + _PREPARE
        server.connection.settimeout(_ROUND)
        names = server.diff_ids
        while any(
            name not in server.states or server.states[name].status is Status.PREPARING
            for name in names
        ):
            check()
            try:
                data = server.connection.recv(MESSAGE_LIMIT)
            except TimeoutError:
                if monotonic() < end:
                    continue
                data = b""
            if not data:
                raise Unavailable("the lazy server did not serve the layers in time")
            message = _decode(data)
            server.update(message.layers)
            if message.wanted is not None:
                self._answer(server, message.wanted)
        server.connection.settimeout(None)

    def _abandon(self, server: _Server) -> None:
        server.release(server.diff_ids)
        self._forget(server)

    def _mount_all(self, server: _Server) -> None:
        """Mount the layers that a server serves, and release the others."""
        for layer in server.request.layers:
            state = server.states[layer.name]
            if state.status is Status.UNFIT:
                _log.info(
                    "layer %s of %s is fetched whole: %s",
                    state.digest,
                    server.request.image,
                    state.reason,
                )
            elif self._mount_or_skip(server, state):
                server.pending.add(layer.name)
        server.release(name for name in server.diff_ids if name not in server.pending)

    def _mount_or_skip(self, server: _Server, state: LayerState) -> bool:
        """Mount a layer and add it to the store. Return whether that was possible."""
        diff_id = server.diff_ids[state.name]
        known = state.name in server.mounted and self._layers.is_lazy(state.name)
        if not known and self._layers.is_lazy(state.name) and self._layers.is_intact(state.name):
            return False  # another pull was faster
        target = self._run / f"{server.directory.name}.{secrets.token_hex(4)}"
        try:
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            mount = self._new_mount(server, state.name)
            try:
                _read_user_files(mount)
                mounts.move_mount(mount, str(target))
            finally:
                os.close(mount)
        except (OSError, CorruptState) as error:
            _log.warning("layer %s cannot be mounted before it is whole: %s", state.digest, error)
            with suppress(OSError):
                target.rmdir()
            return False
        info = LayerInfo(diff_id, state.size, 0, state.states_root)
        origin = server.request.origin
        layer = LazyLayer(state.name, info, str(target), state.inodes, origin)
        if not (self._layers.replace_lazy(layer) if known else self._layers.add_lazy(layer)):
            _unmount(target)
            return False
        former = server.mounted.get(state.name)
        server.mounted[state.name] = target
        if former is not None:
            _unmount_later(former, _UNMOUNT_DELAY)
        return True

    def _new_mount(self, server: _Server, name: str) -> int:
        """Return a new mount of the metadata image of a layer.

        The image is copied: a process that can write it must not do so while the kernel reads it.

        :raises OSError: when the kernel refuses it.
        """
        copy = self._root / f"{server.directory.name}.{secrets.token_hex(4)}.erofs"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        try:
            with (
                _open_file(server.directory / lazy_protocol.metadata_name(name)) as source,
                open(copy, "wb", opener=lambda path, _: os.open(path, flags, 0o600)) as target,
            ):
                shutil.copyfileobj(source, target, _COPY)
            device = f"/proc/self/fd/{server.fuse}/{lazy_protocol.device_name(name)}"
            attributes = mounts.MOUNT_ATTR.RDONLY | mounts.MOUNT_ATTR.NODEV
            return mounts.new_filesystem(
                "erofs",
                (("device", device), ("ro", None)),
                attributes | mounts.MOUNT_ATTR.NOSUID,
                source=str(copy),
            )
        finally:
            copy.unlink(missing_ok=True)

    # -- layers that get whole ------------------------------------------------------------------

    def _follow(self, server: _Server) -> None:
        threading.Thread(
            target=self._run_server, args=(server,), name="lazy-layers", daemon=True
        ).start()

    def _run_server(self, server: _Server) -> None:
        """Take over each layer of a server that gets whole; start the server again if it dies."""
        restarts, pause = 0, _PAUSE
        while True:
            before = len(server.pending)
            self._receive_all(server)
            if self._closing.is_set():
                server.disconnect()
                return
            if not server.pending:
                break
            if len(server.pending) < before:
                restarts, pause = 0, _PAUSE
            _log.warning("the lazy server has ended: %s", server.request.image)
            for name in tuple(server.pending):
                self._layers.interrupt_lazy(name)
            restarts += 1
            if restarts > _RESTARTS or self._closing.wait(pause):
                break
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                with server.lock:
                    self._restart(server)
            except (OSError, JaulaError, msgspec.MsgspecError, UnicodeDecodeError) as error:
                _log.warning("the lazy server cannot be started again: %s", error)
        if self._closing.is_set():
            server.disconnect()
            return
        for name in tuple(server.pending):
            self._fail(server, name, "the lazy server has ended")
        self._forget(server)

    def _restart(self, server: _Server) -> None:
        """Start the process of a server again, and mount its layers anew for the next starts.

        :raises OSError: when that is not possible.
        """
        layers = tuple(each for each in server.request.layers if each.name in server.pending)
        server.request = msgspec.structs.replace(server.request, layers=layers)
        server.diff_ids = {layer.name: layer.diff_id for layer in layers}
        self._spawn(server)
        try:
            self._connect(server)
            self._wait_prepared(server, self._check_closing)
        except BaseException:
            server.kill()
            raise
        for name in server.diff_ids:
            state = server.states[name]
            if state.status is Status.UNFIT:
                raise Unavailable(f"it does not serve layer {state.digest}: {state.reason}")
            self._mount_or_skip(server, state)

    def _check_closing(self) -> None:
        if self._closing.is_set():
            raise Unavailable("the engine ends")

    def _receive_all(self, server: _Server) -> None:
        """Carry out what a server reports, until it ends or nothing is pending."""
        try:
            self._take_over(server)
            while server.pending:
                server.connection.settimeout(_CHECK)
                try:
                    data = server.connection.recv(MESSAGE_LIMIT)
                except TimeoutError:
                    self._take_over(server)
                    continue
                if not data:
                    return
                message = _decode(data)
                if message.read_error:
                    image, error = server.request.image, message.read_error
                    _log.error("%s: a container cannot read %s", image, error)
                    self.on_event("fetch-failed", image, {"error": error})
                if message.wanted is not None:
                    self._answer(server, message.wanted)
                server.update(message.layers)
                if message.resumed:
                    server.resuming = max(0, server.resuming - 1)
                if message.layers or message.resumed:
                    self._take_over(server)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            if server.pending and not self._closing.is_set():
                _log.warning("the connection to a lazy server failed: %s", error)

    def _answer(self, server: _Server, wanted: lazy_protocol.Wanted) -> None:
        """Answer a question: the server can read neither layers nor the state of a process.

        :raises OSError: when the server is gone.
        """
        if wanted.reader:
            reply = Command(answer=wanted.number, killed=_is_killed(wanted.reader))
            server.connection.send(msgspec.json.encode(reply))
            return
        reply = Command(answer=wanted.number)
        content = None
        if toc.is_digest(wanted.digest) and 0 < wanted.size <= toc.CHUNK_LIMIT:
            content = self._stored.read(wanted.digest, wanted.size)
        if content is None:
            server.connection.send(msgspec.json.encode(reply))
            return
        descriptor = os.memfd_create("chunk", os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            socket.send_fds(server.connection, [msgspec.json.encode(reply)], [descriptor])
        finally:
            os.close(descriptor)

    def _take_over(self, server: _Server) -> None:
        done = False
        for layer in server.request.layers:
            if layer.name not in server.pending:
                continue
            state = server.states.get(layer.name)
            if not self._layers.is_lazy(layer.name):
                server.pending.discard(layer.name)  # its image was removed
            elif self._is_stored(layer):
                self._finish(server, layer.name)  # another pull has brought both
                done = True
            elif state is not None and state.status is Status.FAILED and state.denied:
                if not server.resuming:  # else it failed without them
                    self._wait_credentials(server, state)
            elif state is not None and state.status is Status.FAILED:
                self._fail(server, layer.name, state.reason)
            elif state is not None and state.status is Status.WHOLE:
                try:
                    self._store(server, layer, self._blobs)
                    done = True
                except (OSError, JaulaError) as error:
                    reason = error.message if isinstance(error, JaulaError) else str(error)
                    self._fail(server, layer.name, reason)
        if done and not server.pending:
            _log.info("%s is whole", server.request.image)
            self.on_event("fetch", server.request.image, {})

    def _store(self, server: _Server, layer: LayerRequest, blobs: BlobStore | None) -> None:
        """Store a blob that is whole, and use the extracted layer from now on.

        The file is the server's, so its content is copied and compared.

        :raises JaulaError: when the blob has another digest than the manifest says, or the layer
            another diff id than the image.
        """
        digest = layer.layer.digest
        assert blobs is not None, "attach() was called"
        self._sync()  # the image has a name: what it needs is on the disk before it gets its own
        if blobs.size(digest) != layer.layer.size:
            whole = server.directory / lazy_protocol.whole_name(layer.name)
            with _open_file(whole) as source, blobs.writer() as blob:
                while data := source.read(_COPY):
                    if blob.size + len(data) > layer.layer.size:
                        raise CorruptState(f"its blob has more than {layer.layer.size} bytes")
                    blob.write(data)
                if blob.digest != digest:
                    raise CorruptState(f"its blob has the digest {blob.digest}")
                blob.commit()
        with blobs.open(digest) as file:
            if self._layers.is_intact(layer.diff_id):
                self._layers.check_blob(file, layer.diff_id, digest)
            else:
                self._layers.extract(file, layer.diff_id, sync=self._sync)
        self._layers.record_blob(layer.diff_id, digest)
        self._finish(server, layer.name)

    def _finish(self, server: _Server, name: str) -> None:
        """Use the directory of a layer from now on."""
        server.pending.discard(name)
        self._layers.end_lazy(name)

    def _wait_credentials(self, server: _Server, state: LayerState) -> None:
        """Let a layer fail that needs credentials. Its server waits for those of the next pull."""
        if self._layers.failure((state.name,)):
            return
        reason = (
            f"{state.missing} of {state.blob_size} bytes are missing, and the registry does not"
            f" send them without credentials, which are not stored: {state.reason}"
        )
        self._layers.fail_lazy(state.name, reason)
        if state.name not in server.denied:
            server.denied.add(state.name)
            self._report_failure(server, state.digest, reason)

    def _report_failure(self, server: _Server, digest: str, reason: str) -> None:
        image = server.request.image
        advice = f"jaula pull {image}"
        _log.error("layer %s of %s cannot get whole: %s; try: %s", digest, image, reason, advice)
        attributes = {"error": reason, "layer": digest, "advice": advice}
        self.on_event("fetch-failed", image, attributes)

    def _fail(self, server: _Server, name: str, reason: str) -> None:
        server.pending.discard(name)
        if self._layers.is_lazy(name):
            digest = server.states[name].digest if name in server.states else diff_id_of(name)
            self._layers.fail_lazy(name, reason)
            self._report_failure(server, digest, reason)

    def _end(self, name: str, replaced: bool) -> None:
        """End the mount of a layer that has a directory now (``replaced``), or was removed.

        Called with the lock of the store. A replaced one is unmounted after the last start that
        may have resolved its path.
        """
        with self._lock:
            servers = tuple(self._servers)
        for server in servers:
            server.pending.discard(name)
            target = server.mounted.pop(name, None)
            if target is None:
                continue
            server.release((name,))
            if not any(map(self._layers.is_lazy, server.mounted)):
                with suppress(OSError):
                    server.connection.shutdown(socket.SHUT_RDWR)  # wakes _receive_all
            _unmount_later(target, _UNMOUNT_DELAY if replaced else 0)

    def _forget(self, server: _Server) -> None:
        """Remove the files of a server. It has them open as long as it needs them."""
        with self._lock, suppress(ValueError):
            self._servers.remove(server)
        server.disconnect()
        self._remove(server.directory)

    def _remove(self, directory: Path) -> None:
        self._document(directory).unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        self._socket_path(directory).unlink(missing_ok=True)

    def _document(self, directory: Path) -> Path:
        return directory.with_name(f"{directory.name}.json")

    def _socket_path(self, directory: Path) -> Path:
        return directory.with_name(f"{directory.name}.sock")

    def _former_socket_path(self, directory: Path) -> Path:
        return self._run / f"{directory.name}.sock"


def _complete(request: Request) -> Request:
    """Return a request with what the server cannot find out: the proxies, and the registry's files.

    :raises InvalidRequest: when the settings of the registry are not valid.
    """
    registry = request.registry

    def variable(name: str) -> str:
        return os.environ.get(name.upper()) or os.environ.get(name) or ""

    return msgspec.structs.replace(
        request,
        endpoints=Hosts(registry).endpoints(request.reference.domain),
        registry=msgspec.structs.replace(
            registry,
            http_proxy=registry.http_proxy or variable("http_proxy"),
            https_proxy=registry.https_proxy or variable("https_proxy"),
            no_proxy=registry.no_proxy or variable("no_proxy"),
        ),
    )


def _decode(data: bytes) -> Message:
    """Return a message of a server.

    :raises OSError: when it is not valid: the server is not trusted.
    """
    try:
        return msgspec.json.decode(data, type=Message)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        reason = f"a message of the lazy server is not valid: {error}"
        raise OSError(errno.EBADMSG, reason) from None


def _is_killed(pid: int) -> bool:
    """Return whether a process is gone, or ends as soon as it can: SIGKILL is pending for it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return True
    pending = (line.split()[1] for line in status.splitlines() if line[:7] in _PENDING)
    return any(int(mask, 16) & _SIGKILL for mask in pending)


def _open_file(path: Path) -> BinaryIO:
    """Open a regular file in the directory of a server.

    :raises CorruptState: when it is something else.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise CorruptState("its blob is not a file")
    return file


def _read_user_files(mount: int) -> None:
    """Bring the files of users into the page cache.

    The engine reads them at each start, in its event loop: it must not wait for a registry there.

    :raises OSError: when a file cannot be fetched.
    """
    with open_directory(".", dir_fd=mount) as root:
        for name in ("etc/passwd", "etc/group"):
            try:
                descriptor = open_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue  # absent, or not a file
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    os.read(descriptor, _USER_FILE_LIMIT)
            finally:
                os.close(descriptor)


def _unmount(target: Path) -> None:
    with suppress(OSError):
        mounts.umount2(str(target), mounts.MNT.DETACH)
        target.rmdir()


def _unmount_later(target: Path, seconds: float) -> None:
    timer = threading.Timer(seconds, _unmount, (target,))
    timer.daemon = True
    timer.start()
