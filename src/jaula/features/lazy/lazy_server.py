"""The lazy server: a process that serves the layers of one pull while their blobs arrive.

It reads the TOC of each layer, writes its EROFS metadata image, and serves the blob devices over
FUSE. One thread fetches the blobs, prioritized parts first. The engine mounts the metadata images,
and takes a blob over when it is whole. The server outlives its engine; the next one connects to its
socket. It ends when every layer is released and no file of it is open.

Every byte that it parses comes from a registry, so it is a sandboxed process
(:mod:`jaula.sandbox.sandbox_confinement`): it has the network, its FUSE connection, a directory,
and no privilege. What it needs of the interpreter is imported before: it cannot load code.

A registry that does not answer is asked again for minutes, with growing pauses, by readers and by
the background. The background also has a least rate: a registry that sends a byte now and then
would keep the layers incomplete for ever.

A server that takes the place of a dead one finds the TOC and a part of the blob in its directory.
Both are compared with their digests before they are used. It may lack the credentials: they are in
memory only. What the registry denies then fails, and goes on when the engine sends credentials.
"""

from __future__ import annotations

import bz2
import contextlib
import encodings.idna
import gc
import gzip
import hashlib
import io
import lzma
import os
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from jaula.errors import InvalidRequest, JaulaError, Unavailable, Unsupported
from jaula.features.lazy import lazy_protocol, metadata
from jaula.features.lazy.blob import LazyBlob
from jaula.features.lazy.lazy_protocol import (
    MESSAGE_LIMIT,
    Command,
    LayerState,
    Message,
    Request,
    Status,
    Wanted,
)
from jaula.images.registry import registry_errors, toc
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.cancellation import Cancellation, Cancelled
from jaula.images.registry.http import proxy_choice
from jaula.images.registry.http.registry_transport import Transport
from jaula.images.registry.pull_sources import Sources
from jaula.images.registry.registry_errors import NoCredentials, RegistryError
from jaula.images.registry.registry_hosts import Hosts
from jaula.images.registry.repository import Repository
from jaula.images.registry.timeouts import Timeouts
from jaula.images.registry.toc import ESTARGZ_FOOTER_SIZE, Toc, TocFormat
from jaula.kernel.fuse import FuseServer
from jaula.spec.image_documents import Descriptor
from jaula.storage import free_space
from jaula.storage.compression import decompress_stream, zstd_module
from jaula.storage.trees import opaque_xattr

_FUSE_THREADS = 4
_FUSE_TIMEOUT = 600  # seconds; a read of this server ends earlier
_CACHE, _LEAST_CACHE = 64 << 20, 4 << 20  # bytes of decompressed chunks, of all and one layer
_STREAM = 1 << 18  # bytes that are read at once
_TIMEOUTS = Timeouts(connect=4, stall=6, document=20, window=10, attempts=2, pause=0.2)
READ_PATIENCE = 180.0  # seconds of an outage for which a program that reads waits
_LONGEST_READ_PAUSE = 8.0  # seconds between two attempts of a read
_PATIENCE = 600.0  # seconds without the least rate after which the background gives up
_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two attempts of the background
_LEAST_RATE: Final = 16 << 10  # bytes a second
_RATE_WINDOW = 60.0  # seconds
_INTERRUPT_GRACE = 10.0  # seconds for which an interrupted read goes on without an engine
_ANSWER = 5.0  # seconds until an engine answers a question
_POLL = 0.5  # seconds between two checks whether the server has to end
_ABANDONED = 60.0  # seconds without an engine, while no file is open and nothing is fetched
_REPORT_INTERVAL = 5.0  # seconds between two reports of errors of reads
_YIELD = 0.01  # seconds that the background waits for a read of a program


_PRELOADED = (encodings.idna, ssl)
"""Modules that are imported at their first use, which would be too late."""


def _preload() -> None:
    """Load what is loaded at its first use: codecs, the look-up of names, the user namespace."""
    opaque_xattr()
    for data in (
        gzip.compress(b""),
        zstd_module().compress(b""),
        bz2.compress(b""),
        lzma.compress(b""),
    ):
        decompress_stream(io.BytesIO(data))[0].read(1)
    with contextlib.suppress(OSError):
        socket.getaddrinfo("localhost", 443)


_TOC_HEAD = struct.Struct("<3Q")  # the position of a stored TOC


class LeastRate:
    """Whether a download is faster than the least rate. Pure: the caller passes the time."""

    def __init__(
        self,
        now: float,
        *,
        rate: int = _LEAST_RATE,
        window: float = _RATE_WINDOW,
        patience: float = _PATIENCE,
    ) -> None:
        """Begin at ``now``. ``rate`` is in bytes a second, over each ``window``."""
        self._rate, self._window, self._patience = rate, window, patience
        self._fast_until = self._begin = now
        self._received = 0

    def receive(self, count: int, now: float) -> None:
        """Count bytes."""
        self._received += count
        self._turn(now)

    def is_missed(self, now: float) -> bool:
        """Return whether each window has been too slow for as long as the patience lasts."""
        self._turn(now)
        return now - self._fast_until > self._patience

    def _turn(self, now: float) -> None:
        if self._received >= self._rate * self._window:
            self._fast_until = now
        elif now - self._begin < self._window:
            return
        self._begin, self._received = now, 0


class TooSlow(JaulaError):
    """The registry has not kept the least rate for as long as the background waits."""

    def __init__(self) -> None:
        super().__init__(
            f"the registry has sent less than {_LEAST_RATE} bytes a second for {_PATIENCE:g} s"
        )


def is_temporary(error: JaulaError) -> bool:
    """Return whether the same request may succeed later. Pure."""
    if isinstance(error, RegistryError):
        return error.is_temporary
    return not isinstance(error, InvalidRequest | Unsupported | TooSlow | Cancelled | NoCredentials)


def is_denied(error: JaulaError) -> bool:
    """Return whether a request may succeed with other credentials. Pure."""
    if isinstance(error, RegistryError):
        return error.http_status in (401, 403)
    return isinstance(error, NoCredentials)


class Registry:
    """The servers of one repository, for ranges of blobs. Methods may be called from any thread."""

    def __init__(self, request: Request) -> None:
        config = request.registry
        proxies = proxy_choice.configured_proxies(
            config.http_proxy, config.https_proxy, config.no_proxy, {}
        )
        self._transport = Transport(Hosts(config), proxies, _TIMEOUTS)
        self._request = request
        self._lock = threading.Lock()
        self._repositories: list[Repository] = []
        self.cancel = Cancellation()
        self.changes = 0  # of the credentials

    def use(self, credentials: Credentials) -> None:
        """Use other credentials from the next request on."""
        with self._lock:
            self._request = msgspec.structs.replace(self._request, credentials=credentials)
            self._repositories = []
            self.changes += 1

    def _sources(self) -> list[Repository]:
        """Return the reachable servers. They are contacted once."""
        with self._lock:
            if not self._repositories:
                reference = self._request.reference
                sources = Sources(
                    self._transport,
                    self._request.endpoints,
                    reference.path,
                    self._request.credentials,
                    self.cancel,
                )
                self._repositories = list(sources.content())
                if not self._repositories:
                    raise Unavailable(f"no server of {reference.domain} is reachable")
            return self._repositories

    def fetch(
        self,
        digest: str,
        offset: int,
        length: int,
        *,
        patience: float = 0.0,
        check: Callable[[], None] = lambda: None,
    ) -> bytes:
        """Return a part of a blob. An outage may last ``patience`` seconds.

        ``check`` is called between two attempts and may raise.

        :raises JaulaError: that of the last server and attempt.
        """
        data = bytearray()
        end, pause = time.monotonic() + patience, _TIMEOUTS.pause
        while True:
            try:
                self.stream(digest, offset + len(data), length - len(data), data.extend)
            except JaulaError as error:
                if not is_temporary(error) or time.monotonic() + pause > end:
                    raise
                check()
                self.cancel.pause(pause)
                pause = min(2 * pause, _LONGEST_READ_PAUSE)
            else:
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
                except TooSlow:
                    raise
                except JaulaError as error:
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
                    raise registry_errors.ConnectionLost(
                        f"{response.url.authority} closed the connection"
                    )
                left -= len(piece)
                sink(piece)
            response.read(1)  # the end, so that the connection is used again


class Layer:
    """A layer that is served."""

    def __init__(self, descriptor: Descriptor, name: str) -> None:
        self.descriptor = descriptor
        self.state = LayerState(name, descriptor.digest, descriptor.size)
        self.prefetch = 0  # end of the prioritized part of the blob
        self.blob: LazyBlob | None = None
        self.released = False


class LazyServer:
    """The layers of one pull."""

    def __init__(
        self, request: Request, listener: socket.socket, connection: tuple[int, int]
    ) -> None:
        """Serve a FUSE ``connection``: a device and a mount. The directory is the current one."""
        self._request = request
        self._listener = listener
        self._registry = Registry(request)
        self._questions: dict[int, _Question] = {}
        self._last_question = 0
        self._layers = [Layer(each.layer, each.name) for each in request.layers]
        self._lock = threading.Lock()
        self._resuming = threading.Lock()
        self._engines: list[socket.socket] = []
        self._reported = 0.0
        self._fuse = FuseServer(connection, timeout=_FUSE_TIMEOUT)

    def run(self) -> None:
        """Serve until the layers are not needed any more."""
        self._fuse.start(_FUSE_THREADS)
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        gc.disable()  # a TOC is many objects and no garbage: a third of the time
        with ThreadPoolExecutor(max(1, min(4, len(self._layers)))) as pool:
            list(pool.map(self._prepare, self._layers))
        gc.freeze()
        gc.enable()
        self._begin_fetch(self._layers)
        idle_since = time.monotonic()
        while not self._is_over():
            time.sleep(_POLL)
            if self._engines or self._any_open():
                idle_since = time.monotonic()
            elif not os.stat(".").st_nlink:
                break  # the engine has removed the directory
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
            self._fuse.is_open(lazy_protocol.device_name(layer.state.name))
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
        descriptor, name = layer.descriptor, layer.state.name
        digest = descriptor.digest
        table = self._stored_toc(layer) or self._fetched_toc(layer)
        tree = metadata.layout(table)
        if not tree.device_size:
            raise InvalidRequest("the layer has no file with contents")
        with open(lazy_protocol.metadata_name(name), "wb") as image:
            metadata.write_image(tree, image)
        with contextlib.suppress(FileNotFoundError):  # of a server that died with a whole blob
            os.rename(lazy_protocol.whole_name(name), lazy_protocol.blob_name(name))
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(lazy_protocol.blob_name(name), flags, 0o600)
        resumed = os.fstat(file).st_size == descriptor.size
        if not resumed:
            free_space.check(file, descriptor.size)
            os.ftruncate(file, descriptor.size)
        layer.prefetch = table.prefetch
        layer.blob = LazyBlob(
            file,
            descriptor.size,
            tree.extents,
            lambda begin, length: self._registry.fetch(
                digest, begin, length, patience=READ_PATIENCE, check=self._reader_check()
            ),
            self._report_read,
            stored=self._stored_chunk,
            cache=max(_LEAST_CACHE, _CACHE // len(self._layers)),
        )
        layer.blob.resumed = resumed
        self._fuse.add(lazy_protocol.device_name(name), tree.device_size, layer.blob.read)
        self._set(
            layer,
            status=Status.READY,
            size=tree.size,
            inodes=len(tree.entries),
            states_root=tree.states_root,
        )

    def _fetched_toc(self, layer: Layer) -> Toc:
        """Fetch the TOC of a layer and store it, for a server that takes this one's place."""
        descriptor = layer.descriptor
        digest = descriptor.digest
        if toc.format_of(descriptor) is TocFormat.ESTARGZ:
            offset = max(0, descriptor.size - ESTARGZ_FOOTER_SIZE)
            footer = self._registry.fetch(digest, offset, descriptor.size - offset)
            position = toc.estargz_position(descriptor, footer)
        else:
            position = toc.zstd_chunked_position(descriptor)
        data = self._registry.fetch(digest, position.offset, position.length)
        table = toc.read(descriptor, position, data)
        with open(lazy_protocol.toc_name(layer.state.name), "wb") as file:
            file.write(_TOC_HEAD.pack(*position) + data)
        return table

    def _stored_toc(self, layer: Layer) -> Toc | None:
        """Return the TOC that a former server has stored, None if it is absent or damaged."""
        try:
            with open(lazy_protocol.toc_name(layer.state.name), "rb") as file:
                position = toc.Position(*_TOC_HEAD.unpack(file.read(_TOC_HEAD.size)))
                return toc.read(layer.descriptor, position, file.read(toc.TOC_LIMIT + 1))
        except (OSError, struct.error, InvalidRequest):
            return None

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
        self._send(Message(read_error=error))

    # -- background -----------------------------------------------------------------------------

    def _begin_fetch(self, layers: Sequence[Layer]) -> None:
        threading.Thread(target=self._fetch_all, args=(layers,), name="fetch", daemon=True).start()

    def _resume(self, credentials: Credentials) -> None:
        """Go on with the layers that the registry has denied."""
        self._registry.use(credentials)
        self._go_on()
        self._send(Message(resumed=True))

    def _go_on(self) -> None:
        with self._resuming:
            denied = [layer for layer in self._layers if layer.state.denied and not layer.released]
            for layer in denied:
                self._set(layer, status=Status.READY, reason="", denied=False)
        if denied:
            self._begin_fetch(denied)

    def _fetch_all(self, some: Sequence[Layer]) -> None:
        """Fetch the prioritized parts, then the rest of some blobs."""
        layers = [(layer, layer.blob) for layer in some if layer.blob is not None]
        for _, blob in layers:
            if blob.resumed:
                blob.find_present()
        for prioritized in (True, False):
            for layer, blob in layers:
                changes = self._registry.changes
                end = layer.prefetch if prioritized else layer.descriptor.size
                try:
                    self._fetch_range(layer, blob, end)
                    if not prioritized:
                        self._finish(layer, blob)
                except (JaulaError, OSError) as error:
                    if not prioritized:
                        reason = error.message if isinstance(error, JaulaError) else str(error)
                        denied = isinstance(error, JaulaError) and is_denied(error)
                        self._set(
                            layer,
                            status=Status.FAILED,
                            reason=reason,
                            denied=denied,
                            missing=blob.missing(),
                        )
                        if denied and self._registry.changes != changes:
                            self._go_on()  # the credentials came meanwhile

    def _fetch_range(self, layer: Layer, blob: LazyBlob, end: int) -> None:
        """Fetch what is absent of the beginning of a blob.

        :raises JaulaError: if the registry does not deliver it, or not fast enough.
        """
        rate, pause = LeastRate(time.monotonic()), _PAUSE
        while not layer.released and (gap := blob.gap(0, end)) is not None:
            position = gap[0]

            def sink(piece: bytes) -> None:
                nonlocal position
                blob.store(position, piece)
                position += len(piece)
                rate.receive(len(piece), time.monotonic())
                if rate.is_missed(time.monotonic()):
                    raise TooSlow
                waited = 0.0
                while blob.active and waited < 1.0:  # a program waits: its chunk comes first
                    time.sleep(_YIELD)
                    waited += _YIELD

            try:
                self._registry.stream(layer.descriptor.digest, gap[0], gap[1] - gap[0], sink)
            except JaulaError as error:
                if not is_temporary(error) or rate.is_missed(time.monotonic()):
                    raise
                if position > gap[0]:
                    pause = _PAUSE
                self._registry.cancel.pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _finish(self, layer: Layer, blob: LazyBlob) -> None:
        if layer.released:
            return
        actual = blob.digest()
        if actual != layer.descriptor.digest and blob.resumed:
            blob.forget()  # what a former process has left is not the blob
            self._fetch_range(layer, blob, layer.descriptor.size)
            actual = blob.digest()
        if actual != layer.descriptor.digest:
            blob.forget()
            raise InvalidRequest(
                f"filesystem layer verification failed for digest {layer.descriptor.digest}: "
                f"the registry sent {actual}"
            )
        name = layer.state.name
        os.rename(lazy_protocol.blob_name(name), lazy_protocol.whole_name(name))
        self._set(layer, status=Status.WHOLE)

    # -- engines --------------------------------------------------------------------------------

    def _accept(self) -> None:
        """Accept engines until another socket takes the place of this one."""
        listener = self._listener
        while listener is self._listener:
            try:
                engine, _ = listener.accept()
            except OSError:  # it was shut down
                continue
            with self._lock:
                states = tuple(layer.state for layer in self._layers)
                first_message = Message(layers=states)
                try:
                    socket.send_fds(
                        engine, [msgspec.json.encode(first_message)], [self._fuse.mount]
                    )
                except OSError:
                    engine.close()
                    continue
                self._engines.append(engine)
            threading.Thread(target=self._receive, args=(engine,), daemon=True).start()

    def _listen(self, descriptor: int) -> None:
        """Accept engines on another socket."""
        former, self._listener = self._listener, socket.socket(fileno=descriptor)
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        with contextlib.suppress(OSError):
            former.shutdown(socket.SHUT_RDWR)  # wakes its thread

    def _receive(self, engine: socket.socket) -> None:
        """Carry out the commands of one engine, and take its answers."""
        with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
            while True:
                data, descriptors, *_ = socket.recv_fds(engine, MESSAGE_LIMIT, 1)
                if not data:
                    break
                command = msgspec.json.decode(data, type=Command)
                for layer in self._layers:
                    if layer.state.name in command.release:
                        layer.released = True
                if command.credentials is not None:
                    self._resume(command.credentials)
                if command.listener and descriptors:
                    self._listen(descriptors.pop())
                with self._lock:
                    question = self._questions.pop(command.answer, None)
                if question is None:
                    for descriptor in descriptors:
                        os.close(descriptor)
                else:
                    question.answer(command, descriptors)
        with self._lock:
            self._engines.remove(engine)
        engine.close()

    def _ask(self, wanted: Wanted) -> _Question | None:
        """Return the answer of an engine to a question, None without one."""
        question = _Question()
        with self._lock:
            if not self._engines:
                return None
            self._last_question += 1
            number = self._last_question
            self._questions[number] = question
        self._send(Message(wanted=msgspec.structs.replace(wanted, number=number)))
        if question.wait(_ANSWER):
            return question
        with self._lock:
            late = self._questions.pop(number, None) is None
        return question if late and question.wait(_ANSWER) else None

    def _stored_chunk(self, digest: str, size: int) -> bytes | None:
        """Return a chunk that a layer on the disk has; the engine reads it."""
        question = self._ask(Wanted(0, digest, size))
        content = question.content if question is not None else b""
        if len(content) != size or "sha256:" + hashlib.sha256(content).hexdigest() != digest:
            return None
        return content

    def _reader_check(self) -> Callable[[], None]:
        """Return a function that raises an error if the program that reads is being killed.

        A signal that does not kill it is no reason to fail a read. The kernel reports all alike.
        """
        interrupted = 0.0

        def check() -> None:
            nonlocal interrupted
            if not self._fuse.is_interrupted():
                return
            interrupted = interrupted or time.monotonic()
            question = self._ask(Wanted(0, reader=self._fuse.caller.pid))
            if question is None:
                killed = time.monotonic() - interrupted > _INTERRUPT_GRACE
            else:
                killed = question.killed
            if killed:
                raise Cancelled

        return check

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


_preload()


class _Question:
    """A question to the engine, and its answer."""

    def __init__(self) -> None:
        self._answered = threading.Event()
        self.killed = False
        self.content = b""

    def answer(self, command: Command, descriptors: list[int]) -> None:
        self.killed = command.killed
        for descriptor in descriptors:
            with open(descriptor, "rb") as file:
                self.content = os.pread(file.fileno(), toc.CHUNK_LIMIT, 0)
        self._answered.set()

    def wait(self, seconds: float) -> bool:
        return self._answered.wait(seconds)


def serve(descriptors: list[int]) -> None:
    """Serve a request: directory, request, FUSE device, FUSE mount, listening socket.

    The process is confined, and ends with this function.
    """
    directory, document, device, mount, listener = descriptors
    os.fchdir(directory)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with open(document, "rb") as file:
        file.seek(0)
        request = msgspec.json.decode(file.read(), type=Request)
    LazyServer(request, socket.socket(fileno=listener), (device, mount)).run()
