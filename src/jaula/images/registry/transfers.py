"""Layer transfers: each layer is fetched once from a server, however many pulls wait for it.

Pulls from different servers have transfers of their own: one that holds bytes back keeps no other
pull waiting.

A transfer receives the blob in one thread and unpacks it in another at the same time. The unpacked
layer enters the store only after the blob's digest and the layer's diff id were verified. If the
layer exists already, the content of the blob is compared with its diff id all the same: only the
manifest says that the two belong together. When the
last pull that waits for a transfer is cancelled, the transfer is cancelled too.

If a transfer that another pull started fails, the pull starts its own: the failure may be due to
the registry of the other pull.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from jaula import spans
from jaula.errors import JaulaError, Unavailable, resource_error
from jaula.images.registry import progress_messages
from jaula.images.registry.cancellation import Cancellation, Cancelled
from jaula.images.registry.download import receive
from jaula.images.registry.growing_file import GrowingFile
from jaula.images.registry.progress_messages import ProgressBoard
from jaula.images.registry.repository import Repository
from jaula.images.registry.worker_pool import WorkerPool
from jaula.images.store.image_store import ImageStore, short
from jaula.spec.image_documents import Descriptor

log = logging.getLogger("jaula.registry")

_CANCEL_TIMEOUT = 60.0  # seconds; longer than any step that does not check for cancellation

Key = tuple[str, str, str]  # digest of the blob, diff id, server


class Transfer:
    """One layer. A waiting pull reads ``error`` and ``done`` after its board was woken."""

    def __init__(self, store: ImageStore, source: Repository, layer: Descriptor, diff_id: str):
        self._store = store
        self._source = source
        self.server = _server(source)
        self.layer = layer
        self.diff_id = diff_id
        self.cancel = Cancellation()
        self.done = False
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._boards: list[ProgressBoard] = []
        self._received = False
        self._started = False
        self._ended = threading.Event()
        self._active = 2  # threads: one receives, one unpacks

    # -- waiting pulls --------------------------------------------------------------------------

    def watch(self, board: ProgressBoard) -> None:
        with self._lock:
            self._boards.append(board)

    def leave(self, board: ProgressBoard) -> None:
        """Stop waiting. Without a waiting pull the transfer is cancelled."""
        with self._lock:
            self._boards.remove(board)
            if self._boards or self.done:
                return
        self.cancel.cancel()

    @property
    def watched(self) -> bool:
        return bool(self._boards)

    def wait_if_cancelled(self) -> None:
        """Wait until a cancelled transfer has removed its files."""
        if self.cancel.done and self._started:
            self._ended.wait(_CANCEL_TIMEOUT)

    def _post(self, text: str) -> None:
        for board in tuple(self._boards):
            board.post(progress_messages.status(text, short(self.layer.digest)))

    def _update(self, text: str, current: int) -> None:
        message = progress_messages.amount(text, short(self.layer.digest), current, self.layer.size)
        for board in tuple(self._boards):
            board.update(message, last=current == self.layer.size)

    # -- the two threads ------------------------------------------------------------------------

    def receive(self, unpackers: WorkerPool) -> None:
        """Fetch the blob; unpacking runs at the same time."""
        unpacking = False
        self._started = True
        try:
            self.cancel.check()
            with self._store.blobs.writer() as blob:
                growing = GrowingFile(blob.reader())
                unpackers.submit(spans.in_context(lambda: self.unpack(growing)))
                unpacking = True

                def on_progress(received: int) -> None:
                    growing.advance(received)
                    self._update("Downloading", received)

                try:
                    with spans.span("layer download", self._attributes()):
                        receive(self._source, self.layer, blob, self.cancel, on_progress)
                    self._post("Verifying Checksum")
                    blob.commit()
                except BaseException as error:
                    growing.fail(error)
                    raise
            self._post("Download complete")
            self._received = True
            growing.finish()
        except BaseException as error:  # noqa: BLE001 - handed to the waiting pulls
            if not unpacking:
                self._end_thread(error)  # in place of the thread that does not unpack
            self._end_thread(error)
        else:
            self._end_thread(None)

    def unpack(self, growing: GrowingFile) -> None:
        """Unpack the blob while it grows. Of a layer that exists, only the digest is compared."""
        layers, digest = self._store.layers, self.layer.digest
        try:
            source = _Progress(growing, self._report_unpacked)
            with spans.span("layer unpack", self._attributes()):
                if not layers.is_intact(self.diff_id):
                    layers.extract(source, self.diff_id)
                elif not layers.has_blob(self.diff_id, digest):
                    layers.check_blob(source, self.diff_id, digest)
        except BaseException as error:  # noqa: BLE001 - handed to the waiting pulls
            self._end_thread(error)
            self.cancel.cancel()
        else:
            self._end_thread(None)
        finally:
            growing.close()

    def _attributes(self) -> dict[str, str | int]:
        return {"layer.digest": self.layer.digest, "layer.size": self.layer.size}

    def _report_unpacked(self, position: int) -> None:
        """Report progress once the receiving thread has nothing more to report."""
        if self._received:
            self._update("Extracting", position)

    def start_unpacking(self, unpackers: WorkerPool) -> None:
        """Unpack a blob that is already stored."""
        self._active, self._started, self._received = 1, True, True
        growing = GrowingFile(self._store.blobs.open(self.layer.digest))
        growing.advance(self.layer.size)
        growing.finish()
        unpackers.submit(spans.in_context(lambda: self.unpack(growing)))

    def _end_thread(self, error: BaseException | None) -> None:
        with self._lock:
            self._active -= 1
            if error is not None and (self.error is None or isinstance(self.error, Cancelled)):
                self.error = error
            if self._active:
                return
            self.done = True
            boards = tuple(self._boards)
        self._ended.set()
        if self.error is not None and not isinstance(self.error, JaulaError | OSError):
            log.error("unexpected error in a transfer", exc_info=self.error)
        if self.error is None:
            self._store.layers.record_blob(self.diff_id, self.layer.digest)
            self._post("Pull complete")
        for board in boards:
            board.wake()


class _Progress:
    """A source that reports how far it was read."""

    def __init__(self, source: GrowingFile, on_progress: Callable[[int], None]) -> None:
        self._source = source
        self._on_progress = on_progress

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        if data:
            self._on_progress(self._source.position)
        return data


class Transfers:
    """All transfers of an engine."""

    def __init__(self, store: ImageStore, downloads: int) -> None:
        self._store = store
        self._receivers = WorkerPool(downloads, "registry-download")
        self._unpackers = WorkerPool(downloads + 1, "registry-unpack")
        self._lock = threading.Lock()
        self._running: dict[Key, Transfer] = {}

    def join(
        self, source: Repository, layer: Descriptor, diff_id: str, board: ProgressBoard
    ) -> tuple[Transfer, bool]:
        """Return the transfer of a layer, watched by ``board``, and whether it is a new one."""
        key = layer.digest, diff_id, _server(source)
        with self._lock:
            running = self._running.get(key)
            if running is not None and not running.done and not running.cancel.done:
                running.watch(board)
                return running, False
            transfer = Transfer(self._store, source, layer, diff_id)
            transfer.watch(board)
            self._running[key] = transfer
        if self._store.blobs.is_intact(layer.digest, layer.size):
            transfer.start_unpacking(self._unpackers)
            return transfer, True
        if self._receivers.busy:
            board.post(progress_messages.status("Waiting", short(layer.digest)))
        self._receivers.submit(spans.in_context(lambda: transfer.receive(self._unpackers)))
        return transfer, True

    def leave(self, transfer: Transfer, board: ProgressBoard) -> None:
        """Stop waiting for a transfer. It is forgotten when it has ended."""
        with self._lock:
            transfer.leave(board)
            key = transfer.layer.digest, transfer.diff_id, transfer.server
            if self._running.get(key) is transfer and (transfer.done or not transfer.watched):
                del self._running[key]


def _server(source: Repository) -> str:
    return str(source.session.base.at(f"/{source.path}"))


def as_jaula_error(error: BaseException) -> JaulaError:
    """Return the failure of a transfer as an error that each waiting thread may raise."""
    if isinstance(error, JaulaError):
        return error
    what = "a layer cannot be stored"
    return resource_error(error, what) or Unavailable(f"{what}: {error}")
