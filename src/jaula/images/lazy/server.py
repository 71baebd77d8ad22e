"""The lazy server: a process that serves the layers of one pull while their blobs arrive.

It reads the TOC of each layer, writes its EROFS metadata image, and serves the blob devices over
FUSE. One thread fetches the blobs, prioritized parts first. The engine mounts the metadata images,
and takes a blob over when it is whole. The server outlives its engine; the next one connects to its
socket. It ends when every layer is released and no file of it is open.

Every byte that it parses comes from a registry, so it is not done in the engine's process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.images.lazy import metadata, protocol
from jaula.images.lazy.blob import LazyBlob, Stored
from jaula.images.lazy.protocol import (
    MESSAGE_LIMIT,
    Command,
    LayerState,
    Message,
    Request,
    Status,
)
from jaula.images.registry import toc
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.errors import ConnectionLost, RegistryError, Unreachable
from jaula.images.registry.hosts import Hosts
from jaula.images.registry.http import proxy
from jaula.images.registry.http.transport import Transport
from jaula.images.registry.repository import Repository
from jaula.images.registry.sources import Sources
from jaula.images.registry.timeouts import Timeouts
from jaula.images.registry.toc import ESTARGZ_FOOTER_SIZE, TocFormat
from jaula.kernel import process
from jaula.kernel.fuse import FuseServer
from jaula.spec.image import Descriptor
from jaula.storage import free_space

COMM = "jaula-lazy"

_FUSE_THREADS = 4
_FUSE_TIMEOUT = 120  # seconds; a read of this server ends much earlier
_CACHE, _LEAST_CACHE = 64 << 20, 4 << 20  # bytes of decompressed chunks, of all and one layer
_STREAM = 1 << 18  # bytes that are read at once
_TIMEOUTS = Timeouts(connect=4, stall=6, document=20, window=10, attempts=2, pause=0.2)
"""A program that reads waits for at most two attempts: less than a start may take."""
_PATIENCE = 600.0  # seconds without a byte after which the background gives up
_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two attempts of the background
_POLL = 0.5  # seconds between two checks whether the server has to end
_ABANDONED = 60.0  # seconds without an engine, while no file is open and nothing is fetched
_REPORT_INTERVAL = 5.0  # seconds between two reports of errors of reads
_YIELD = 0.01  # seconds that the background waits for a read of a program


class Registry:
    """The servers of one repository, for ranges of blobs. Methods may be called from any thread."""

    def __init__(self, request: Request) -> None:
        config = request.registry
        proxies = proxy.configured_proxies(
            config.http_proxy, config.https_proxy, config.no_proxy, os.environ
        )
        self._transport = Transport(Hosts(config), proxies, _TIMEOUTS)
        self._request = request
        self._lock = threading.Lock()
        self._repositories: list[Repository] = []
        self.cancel = Cancellation()

    def _sources(self) -> list[Repository]:
        """Return the reachable servers. They are contacted once."""
        with self._lock:
            if not self._repositories:
                reference = self._request.reference
                endpoints = self._transport.hosts.endpoints(reference.domain)
                sources = Sources(
                    self._transport,
                    endpoints,
                    reference.path,
                    self._request.credentials,
                    self.cancel,
                )
                self._repositories = list(sources.content())
                if not self._repositories:
                    raise Unavailable(f"no server of {reference.domain} is reachable")
            return self._repositories

    def fetch(self, digest: str, offset: int, length: int) -> bytes:
        """Return a part of a blob.

        :raises JaulaError: that of the last server and attempt.
        """
        data = bytearray()
        self.stream(digest, offset, length, data.extend)
        return bytes(data)

    def stream(
        self, digest: str, offset: int, length: int, sink: Callable[[bytes], object]
    ) -> None:
        """Pass a part of a blob to ``sink`` in pieces; resume after a dropped connection.

        :raises JaulaError: that of the last server and attempt.
        """
        received = 0

        def count(piece: bytes) -> None:
            nonlocal received
            sink(piece)
            received += len(piece)

        last: JaulaError = Unavailable("no attempt was made")
        for attempt in range(_TIMEOUTS.attempts):
            if attempt:
                self.cancel.pause(_TIMEOUTS.pause)
            for repository in self._sources():
                try:
                    self._part(repository, digest, offset + received, length - received, count)
                except (ConnectionLost, RegistryError, Unreachable, JaulaError) as error:
                    self.cancel.check()
                    last = error
                else:
                    return
        raise last

    def _part(
        self,
        repository: Repository,
        digest: str,
        offset: int,
        length: int,
        sink: Callable[[bytes], object],
    ) -> None:
        with repository.blob_range(digest, offset, length, self.cancel) as response:
            left = length
            while left:
                piece = response.read(min(_STREAM, left))
                if not piece:
                    raise ConnectionLost(f"{response.url.authority} closed the connection")
                left -= len(piece)
                sink(piece)
            response.read(1)  # the end, so that the connection is used again


class Layer:
    """A layer that is served."""

    def __init__(self, descriptor: Descriptor, diff_id: str) -> None:
        self.descriptor = descriptor
        self.state = LayerState(descriptor.digest, diff_id, descriptor.size)
        self.prefetch = 0  # end of the prioritized part of the blob
        self.blob: LazyBlob | None = None
        self.released = False


def _stored_chunks(request: Request) -> Stored:
    """Return the reader of chunks that other layers have. Only EROFS layers have an index."""
    index = Path(request.chunk_index)
    if not index.exists():
        return lambda digest, size: None
    from jaula.storage.layers.chunk_index import StoredChunks

    return StoredChunks(index, Path(request.stored_layers)).read


class LazyServer:
    """The layers of one pull."""

    def __init__(self, request: Request, listener: socket.socket) -> None:
        self._request = request
        self._listener = listener
        self._registry = Registry(request)
        self._stored = _stored_chunks(request)
        self._layers = [Layer(each.layer, each.diff_id) for each in request.layers]
        self._lock = threading.Lock()
        self._engines: list[socket.socket] = []
        self._reported = 0.0
        self._fuse = FuseServer(timeout=_FUSE_TIMEOUT)

    def run(self) -> None:
        """Serve until the layers are not needed any more."""
        self._fuse.start(_FUSE_THREADS)
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        gc.disable()  # a TOC is many objects and no garbage: a third of the time
        with ThreadPoolExecutor(max(1, min(4, len(self._layers)))) as pool:
            list(pool.map(self._prepare, self._layers))
        gc.freeze()
        gc.enable()
        threading.Thread(target=self._fetch_all, name="fetch", daemon=True).start()
        idle_since = time.monotonic()
        while not self._is_over():
            time.sleep(_POLL)
            if self._engines or self._any_open():
                idle_since = time.monotonic()
            elif not os.path.isdir(self._request.directory):
                break  # the engine's directory was removed
            elif self._is_fetching():
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > _ABANDONED:
                break
            for layer in self._layers:
                if layer.blob is not None:
                    layer.blob.trim()
        self._registry.cancel.cancel()

    def _any_open(self) -> bool:
        return any(
            self._fuse.is_open(protocol.device_name(layer.state.diff_id))
            for layer in self._layers
            if layer.blob is not None
        )

    def _is_fetching(self) -> bool:
        return any(
            layer.state.status is Status.READY and not layer.released for layer in self._layers
        )

    def _is_over(self) -> bool:
        finished = all(
            layer.released or layer.state.status is Status.UNFIT for layer in self._layers
        )
        return finished and not self._any_open()

    # -- layers ---------------------------------------------------------------------------------

    def _prepare(self, layer: Layer) -> None:
        """Read the TOC of a layer and write its metadata image."""
        try:
            self._read_toc(layer)
        except JaulaError as error:
            self._set(layer, status=Status.UNFIT, reason=error.message)
        except OSError as error:
            self._set(layer, status=Status.UNFIT, reason=error.strerror or str(error))
        except BaseException as error:
            self._set(layer, status=Status.UNFIT, reason=f"unexpected error: {error!r}")
            raise

    def _read_toc(self, layer: Layer) -> None:
        descriptor, diff_id = layer.descriptor, layer.state.diff_id
        digest = descriptor.digest
        if toc.format_of(descriptor) is TocFormat.ESTARGZ:
            offset = max(0, descriptor.size - ESTARGZ_FOOTER_SIZE)
            footer = self._registry.fetch(digest, offset, descriptor.size - offset)
            position = toc.estargz_position(descriptor, footer)
        else:
            position = toc.zstd_chunked_position(descriptor)
        data = self._registry.fetch(digest, position.offset, position.length)
        table = toc.read(descriptor, position, data)
        tree = metadata.layout(table)
        if not tree.device_size:
            raise InvalidRequest("the layer has no file with contents")
        directory = self._request.directory
        with open(f"{directory}/{protocol.metadata_name(diff_id)}", "xb") as image:
            metadata.write_image(tree, image)
        file = os.open(
            f"{directory}/{protocol.blob_name(diff_id)}",
            os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC,
            0o600,
        )
        free_space.check(file, descriptor.size)
        os.ftruncate(file, descriptor.size)
        layer.prefetch = table.prefetch
        layer.blob = LazyBlob(
            file,
            descriptor.size,
            tree.extents,
            lambda begin, length: self._registry.fetch(digest, begin, length),
            self._report_read,
            stored=self._stored,
            cache=max(_LEAST_CACHE, _CACHE // len(self._layers)),
        )
        self._fuse.add(protocol.device_name(diff_id), tree.device_size, layer.blob.read)
        self._set(
            layer,
            status=Status.READY,
            size=tree.size,
            inodes=len(tree.entries),
            states_root=tree.states_root,
        )

    def _set(self, layer: Layer, **changes: object) -> None:
        with self._lock:
            layer.state = msgspec.structs.replace(layer.state, **changes)
        self._send(Message(layers=(layer.state,)))

    def _report_read(self, path: str, reason: str) -> None:
        """Send the error of a read to the engine, not more often than its log can bear."""
        now = time.monotonic()
        with self._lock:
            if now - self._reported < _REPORT_INTERVAL:
                return
            self._reported = now
        error = f"{path}: {reason}"
        if not self._engines:  # it has stored the layers: the disk is damaged
            sys.stderr.write(f"{self._request.image}: a container cannot read {error}\n")
        self._send(Message(read_error=error))

    # -- background -----------------------------------------------------------------------------

    def _fetch_all(self) -> None:
        """Fetch the prioritized parts, then the rest of all blobs."""
        layers = [layer for layer in self._layers if layer.blob is not None]
        for prioritized in (True, False):
            for layer in layers:
                end = layer.prefetch if prioritized else layer.descriptor.size
                try:
                    self._fetch_range(layer, end)
                    if not prioritized:
                        self._finish(layer)
                except (JaulaError, OSError) as error:
                    if not prioritized:
                        reason = error.message if isinstance(error, JaulaError) else str(error)
                        self._set(layer, status=Status.FAILED, reason=reason)

    def _fetch_range(self, layer: Layer, end: int) -> None:
        """Fetch what is absent of the beginning of a blob.

        :raises JaulaError: if the registry does not deliver it.
        """
        blob = layer.blob
        assert blob is not None, "the layer is ready"
        progress, pause = time.monotonic(), _PAUSE
        while not layer.released and (gap := blob.gap(0, end)) is not None:
            position = gap[0]

            def sink(piece: bytes) -> None:
                nonlocal position
                assert blob is not None, "the layer is ready"
                blob.store(position, piece)
                position += len(piece)
                waited = 0.0
                while blob.active and waited < 1.0:  # a program waits: its chunk comes first
                    time.sleep(_YIELD)
                    waited += _YIELD

            try:
                self._registry.stream(layer.descriptor.digest, gap[0], gap[1] - gap[0], sink)
            except (ConnectionLost, RegistryError, Unreachable, Unavailable) as error:
                if isinstance(error, RegistryError) and not error.is_temporary:
                    raise
                now = time.monotonic()
                if position > gap[0]:
                    progress, pause = now, _PAUSE
                elif now - progress > _PATIENCE:
                    raise
                self._registry.cancel.pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _finish(self, layer: Layer) -> None:
        blob = layer.blob
        if blob is None or layer.released:
            return
        if (actual := blob.digest()) != layer.descriptor.digest:
            blob.forget()
            raise InvalidRequest(
                f"filesystem layer verification failed for digest {layer.descriptor.digest}: "
                f"the registry sent {actual}"
            )
        directory, diff_id = self._request.directory, layer.state.diff_id
        os.rename(
            f"{directory}/{protocol.blob_name(diff_id)}",
            f"{directory}/{protocol.whole_name(diff_id)}",
        )
        self._set(layer, status=Status.WHOLE)

    # -- engines --------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            engine, _ = self._listener.accept()
            with self._lock:
                states = tuple(layer.state for layer in self._layers)
                first_message = Message(image=self._request.image, layers=states)
                try:
                    socket.send_fds(
                        engine, [msgspec.json.encode(first_message)], [self._fuse.mount]
                    )
                except OSError:
                    engine.close()
                    continue
                self._engines.append(engine)
            threading.Thread(target=self._receive, args=(engine,), daemon=True).start()

    def _receive(self, engine: socket.socket) -> None:
        """Carry out the commands of one engine."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            while data := engine.recv(MESSAGE_LIMIT):
                released = msgspec.json.decode(data, type=Command).release
                for layer in self._layers:
                    if layer.state.diff_id in released:
                        layer.released = True
        with self._lock:
            self._engines.remove(engine)
        engine.close()

    def _send(self, message: Message) -> None:
        data = msgspec.json.encode(message)
        with self._lock:
            engines = tuple(self._engines)
        for engine in engines:
            try:
                engine.send(data, socket.MSG_DONTWAIT)
            except OSError:  # an engine that does not read must not stop a reader of a file
                with contextlib.suppress(OSError):
                    engine.shutdown(socket.SHUT_RDWR)


def main() -> int:
    """Serve the request on standard input. The argument is the number of the listening socket."""
    process.set_name(COMM)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    listener = socket.socket(fileno=int(sys.argv[1]))
    try:
        server = LazyServer(request, listener)
    except OSError as error:
        sys.stderr.write(f"the lazy server cannot start: {error}\n")
        return 1
    server.run()
    return 0


if __name__ == "__main__":
    os._exit(main())  # threads may wait for a registry
