"""Layers that are mounted before they are whole: the engine's side of lazy servers.

1. A pull starts a server for the layers that have a TOC (:mod:`jaula.images.lazy.server`), and
   mounts the metadata image of each one that the server can serve at ``<run>/lazy/<diff id>``, in
   the engine's mount namespace. The layer store has them from then on, so the image can be named.
2. When the server reports that a blob is whole, the blob is moved into the blob store and extracted
   like any other. From then on the layer is its directory. The mount is removed later: a start may
   have resolved its path before, and containers that run keep their own.
3. The next engine connects to the servers of the former one. If a server is gone, its layers that
   are whole are extracted, and the others are missing: their images need another pull.

The server is trusted as far as the digests of blob and layer confirm its work. What a container
reads before was compared with the TOC, whose digest is in the manifest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

import msgspec

from jaula.config import Paths, RegistryConfig
from jaula.errors import CorruptState, JaulaError, Unavailable
from jaula.images.lazy import protocol
from jaula.images.lazy.protocol import (
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
from jaula.images.store.blobs import BlobStore
from jaula.kernel import mounts
from jaula.kernel.paths import open_in_root
from jaula.spec.image import Descriptor
from jaula.storage.layers.store import LayerInfo, LayerStore, LazyLayer
from jaula.storage.trees import open_directory

MINIMUM = 1 << 20
"""Bytes of a layer. A smaller one is fetched whole, which takes as long as its TOC."""

_LAYERS_LIMIT = 100  # of one server
_PREPARE = 30.0  # seconds in which a server has to serve its first layers
_CONNECT = 20.0  # seconds until the first message: an interpreter starts
_UNMOUNT_DELAY = 90.0  # seconds; longer than a start may take
_USER_FILE_LIMIT = 1 << 20  # bytes, as the engine reads
_ROUND = 0.5  # seconds between two checks for cancellation

_log = logging.getLogger("jaula.lazy")

EventSink = Callable[[str, str, dict[str, str]], None]
"""Is called with action, image and attributes of an event, from any thread."""


class _Server:
    """A connection to a lazy server, with its layers."""

    def __init__(self, directory: Path, connection: socket.socket, fuse: int, image: str) -> None:
        self.directory = directory
        self.connection = connection
        self.fuse = fuse
        self.image = image
        self.states: dict[str, LayerState] = {}
        self.mounted: dict[str, Path] = {}  # mount points by diff id

    def update(self, states: Iterable[LayerState]) -> None:
        self.states.update((state.diff_id, state) for state in states)

    def release(self, diff_ids: Iterable[str]) -> None:
        """Tell the server that layers are not needed any more."""
        with suppress(OSError):
            self.connection.send(msgspec.json.encode(Command(tuple(diff_ids))))


class LazyLayers:
    """The lazy layers of one engine. Methods may be called from any thread."""

    def __init__(self, paths: Paths, layers: LayerStore, *, enabled: bool = True) -> None:
        """Without ``enabled`` no more pulls are lazy; servers that run are still followed."""
        self._enabled = enabled
        self._root = paths.root / "lazy"
        self._run = paths.run / "lazy"
        self._chunk_index, self._stored_layers = paths.chunk_index, paths.layers
        self._layers = layers
        self._blobs: BlobStore | None = None
        self._sync: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._servers: list[_Server] = []
        self._closed = False
        self.on_event: EventSink = lambda action, image, attributes: None
        layers.on_lazy_end = self._end

    # -- start of the engine --------------------------------------------------------------------

    def adopt(self) -> None:
        """Connect to the servers of a former engine, and mount their layers again.

        What a server that is gone has left is removed, except layers that are whole.
        """
        if not self._root.is_dir():
            return
        for path in self._run.glob("*.*"):
            if path.is_dir():
                with suppress(OSError):
                    path.rmdir()  # a mount point in the namespace of the former engine
        for directory in sorted(self._root.iterdir()):
            try:
                server = self._connect(directory)
            except (OSError, JaulaError) as error:
                self._recover(directory)
                _log.warning("lazy server %s is gone: %s", directory.name, error)
                continue
            for state in server.states.values():
                if state.status in (Status.READY, Status.WHOLE, Status.FAILED):
                    self._mount_or_skip(server, state)
            self._servers.append(server)

    def attach(self, blobs: BlobStore, sync: Callable[[], None]) -> None:
        """Set the blob store; ``sync`` writes it to the disk. Follow the adopted servers."""
        self._blobs, self._sync = blobs, sync
        for server in self._servers:
            for diff_id in server.mounted:
                state = server.states[diff_id]
                blobs.expect(state.digest, state.blob_size)
            self._follow(server)

    def close(self) -> None:
        """Disconnect from all servers, which go on."""
        with self._lock:
            self._closed = True
            servers, self._servers = self._servers, []
        for server in servers:
            with suppress(OSError):
                server.connection.shutdown(socket.SHUT_RDWR)

    def _recover(self, directory: Path) -> None:
        """Extract the layers that are whole, and remove the files of a server that is gone."""
        for file in directory.glob("*" + protocol.WHOLE_SUFFIX):
            diff_id = "sha256:" + file.name.removesuffix(protocol.WHOLE_SUFFIX)
            try:
                digest = json.loads((directory / "blobs.json").read_bytes())[diff_id]
                with file.open("rb") as blob:
                    actual = hashlib.file_digest(blob, "sha256").hexdigest()
                    if f"sha256:{actual}" != digest:
                        raise CorruptState(f"its blob has the digest sha256:{actual}")
                    blob.seek(0)
                    self._layers.extract(blob, diff_id)
                BlobStore(self._root.parent / "images").put_file(file, digest)
            except (OSError, JaulaError, KeyError, ValueError) as error:
                _log.warning("layer %s is not recovered: %s", diff_id, error)
        self._remove(directory)

    # -- pulls ----------------------------------------------------------------------------------

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

        Return their diff ids. All others have to be fetched; the log has the reasons.

        The caller has pinned the layers and their blobs.
        """
        chosen = [
            LayerRequest(layer, diff_id)
            for layer, diff_id in candidates
            if layer.size >= MINIMUM and toc.format_of(layer) is not None
        ][:_LAYERS_LIMIT]
        if not chosen or not self._enabled or self._blobs is None:
            return set()
        try:
            server = self._start(image, reference, registry, credentials, chosen)
            self._wait_prepared(server, cancel)
        except (OSError, JaulaError) as error:
            cancel.check()
            _log.warning("%s is pulled whole: %s", image, error)
            return set()
        for layer in chosen:
            state = server.states[layer.diff_id]
            if state.status is Status.UNFIT:
                _log.info("layer %s of %s is fetched whole: %s", state.digest, image, state.reason)
            elif self._mount_or_skip(server, state):
                self._blobs.expect(state.digest, state.blob_size)
        server.release(layer.diff_id for layer in chosen if layer.diff_id not in server.mounted)
        with self._lock:
            self._servers.append(server)
        self._follow(server)
        return set(server.mounted)

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
        try:
            self._spawn(
                directory,
                Request(
                    str(directory),
                    image,
                    reference,
                    registry,
                    credentials,
                    tuple(layers),
                    str(self._chunk_index),
                    str(self._stored_layers),
                ),
            )
            return self._connect(directory)
        except BaseException:
            self._remove(directory)
            raise

    def _spawn(self, directory: Path, request: Request) -> None:
        """Start the process of a server, which listens on its socket.

        :raises OSError: when it cannot be started.
        """
        digests = {layer.diff_id: layer.layer.digest for layer in request.layers}
        (directory / "blobs.json").write_text(json.dumps(digests))
        root = str(Path(__file__).resolve().parents[3])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, *sys.path])}
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(self._socket_path(directory)))
            listener.listen(4)
            process = subprocess.Popen(
                [sys.executable, "-m", protocol.SERVER_MODULE, str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
                cwd="/",
                env=environment,
            )
            threading.Thread(target=process.wait, name="lazy-reaper", daemon=True).start()
            assert process.stdin is not None, "it is a pipe"
            with process.stdin as stdin:
                stdin.write(msgspec.json.encode(request))

    def _connect(self, directory: Path) -> _Server:
        """Connect to the server of a directory.

        :raises OSError: when there is none, or it does not answer.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(_CONNECT)
            connection.connect(str(self._socket_path(directory)))
            data, descriptors, *_ = socket.recv_fds(connection, MESSAGE_LIMIT, 1)
            if not data or not descriptors:
                raise ConnectionError("the lazy server has ended")
            connection.settimeout(None)
        except BaseException:
            connection.close()
            raise
        first_message = msgspec.json.decode(data, type=Message)
        server = _Server(directory, connection, descriptors[0], first_message.image)
        server.update(first_message.layers)
        return server

    def _wait_prepared(self, server: _Server, cancel: Cancellation) -> None:
        """Wait until the server has read every TOC.

        :raises Unavailable: when it does not within some seconds.
        """
        end = monotonic() + _PREPARE
        server.connection.settimeout(_ROUND)
        while any(s.status is Status.PREPARING for s in server.states.values()):
            try:
                cancel.check()
                data = server.connection.recv(MESSAGE_LIMIT)
            except TimeoutError:
                if monotonic() < end:
                    continue
                data = b""
            except BaseException:
                self._abandon(server)
                raise
            if not data:
                self._abandon(server)
                raise Unavailable("the lazy server did not serve the layers in time")
            server.update(msgspec.json.decode(data, type=Message).layers)
        server.connection.settimeout(None)

    def _abandon(self, server: _Server) -> None:
        server.release(server.states)
        self._forget(server)

    def _mount_or_skip(self, server: _Server, state: LayerState) -> bool:
        """Mount a layer and add it to the store. Return whether that was possible."""
        if self._layers.is_intact(state.diff_id):
            return False  # another pull was faster
        target = self._run / f"{server.directory.name}.{protocol.device_name(state.diff_id)[:12]}"
        try:
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            device = f"/proc/self/fd/{server.fuse}/{protocol.device_name(state.diff_id)}"
            image = f"{server.directory}/{protocol.metadata_name(state.diff_id)}"
            attributes = mounts.MOUNT_ATTR.RDONLY | mounts.MOUNT_ATTR.NODEV
            mount = mounts.new_filesystem(
                "erofs",
                (("device", device), ("ro", None)),
                attributes | mounts.MOUNT_ATTR.NOSUID,
                source=image,
            )
            try:
                _read_user_files(mount)
                mounts.move_mount(mount, str(target))
            finally:
                os.close(mount)
        except OSError as error:
            _log.warning("layer %s cannot be mounted before it is whole: %s", state.digest, error)
            return False
        info = LayerInfo(state.diff_id, state.size, 0, state.states_root)
        self._layers.add_lazy(LazyLayer(info, str(target), state.inodes))
        server.mounted[state.diff_id] = target
        return True

    # -- layers that get whole ------------------------------------------------------------------

    def _follow(self, server: _Server) -> None:
        threading.Thread(
            target=self._run_server, args=(server,), name="lazy-layers", daemon=True
        ).start()

    def _run_server(self, server: _Server) -> None:
        """Take over each layer of a server that gets whole, until the server ends."""
        try:
            self._take_over(server)
            while any(self._layers.is_lazy(diff_id) for diff_id in server.mounted):
                data = server.connection.recv(MESSAGE_LIMIT)
                if not data:
                    break
                message = msgspec.json.decode(data, type=Message)
                if message.read_error:
                    _log.error("%s: a container cannot read %s", server.image, message.read_error)
                    self.on_event("fetch-failed", server.image, {"error": message.read_error})
                server.update(message.layers)
                self._take_over(server)
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("the connection to a lazy server failed: %s", error)
        if self._closed:
            return
        for diff_id in server.mounted:
            if self._layers.is_lazy(diff_id):
                self._fail(server, diff_id, "the lazy server has ended")
        self._forget(server)

    def _take_over(self, server: _Server) -> None:
        for diff_id in tuple(server.mounted):
            state = server.states[diff_id]
            if not self._layers.is_lazy(diff_id):
                continue
            if state.status is Status.FAILED:
                self._fail(server, diff_id, state.reason)
            elif state.status is Status.WHOLE:
                try:
                    self._store(server, state)
                except (OSError, JaulaError) as error:
                    reason = error.message if isinstance(error, JaulaError) else str(error)
                    self._fail(server, diff_id, reason)
        if server.mounted and not any(map(self._layers.is_lazy, server.mounted)):
            _log.info("%s is whole", server.image)
            self.on_event("fetch", server.image, {})

    def _store(self, server: _Server, state: LayerState) -> None:
        """Store a blob that is whole, and use the extracted layer from now on.

        :raises JaulaError: when the layer has another diff id than the image says.
        """
        assert self._blobs is not None, "attach() was called"
        self._sync()  # the image has a name: what it needs is on the disk before it gets its own
        with suppress(FileNotFoundError):  # the former engine has stored it
            self._blobs.put_file(
                server.directory / protocol.whole_name(state.diff_id), state.digest
            )
        with self._blobs.open(state.digest) as blob:
            self._layers.extract(blob, state.diff_id, sync=self._sync)

    def _fail(self, server: _Server, diff_id: str, reason: str) -> None:
        state = server.states[diff_id]
        if self._layers.is_lazy(diff_id):
            _log.error("layer %s of %s cannot get whole: %s", state.digest, server.image, reason)
            self._layers.fail_lazy(diff_id, reason)
            if self._blobs is not None:
                self._blobs.end_expected(state.digest)
            self.on_event("fetch-failed", server.image, {"error": reason, "layer": state.digest})

    def _end(self, diff_id: str, replaced: bool) -> None:
        """End the mount of a layer that has a directory now (``replaced``), or was removed.

        Called with the lock of the store. A replaced one is unmounted after the last start that
        may have resolved its path.
        """
        with self._lock:
            servers = tuple(self._servers)
        for server in servers:
            target = server.mounted.get(diff_id)
            if target is None:
                continue
            if self._blobs is not None:
                self._blobs.end_expected(server.states[diff_id].digest)
            server.release((diff_id,))
            if not any(map(self._layers.is_lazy, server.mounted)):
                with suppress(OSError):
                    server.connection.shutdown(socket.SHUT_RDWR)  # wakes _run_server
            timer = threading.Timer(_UNMOUNT_DELAY if replaced else 0, _unmount, (target,))
            timer.daemon = True
            timer.start()

    def _forget(self, server: _Server) -> None:
        """Remove the files of a server. It has them open as long as it needs them."""
        with self._lock, suppress(ValueError):
            self._servers.remove(server)
        server.connection.close()
        os.close(server.fuse)
        self._remove(server.directory)

    def _remove(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        self._socket_path(directory).unlink(missing_ok=True)

    def _socket_path(self, directory: Path) -> Path:
        return self._run / f"{directory.name}.sock"


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
