"""Layers on their way: each is fetched once, however many pulls wait for it.

A transfer receives the blob in one thread, and unpacks it in another while it comes. What is
unpacked takes its place in the store only after the blob's digest and the layer's diff id were
found right. When the last pull that waits for a transfer is cancelled, so is the transfer.

Where a transfer was begun for another pull and fails, perhaps for reasons of that pull's registry,
a pull begins its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from jaula.errors import JaulaError, Unavailable
from jaula.images.registry import progress
from jaula.images.registry.cancellation import Cancellation, Cancelled
from jaula.images.registry.download import receive
from jaula.images.registry.growing_file import GrowingFile
from jaula.images.registry.progress import ProgressBoard
from jaula.images.registry.repository import Repository
from jaula.images.registry.worker_pool import WorkerPool
from jaula.images.store.store import ImageStore, short
from jaula.spec.image import Descriptor

log = logging.getLogger("jaula.registry")

_FAREWELL = 60.0  # seconds; longer than anything that does not notice a cancellation takes

Key = tuple[str, str]  # digest of the blob, diff id


class Transfer:
    """One layer. ``error`` and ``done`` are read by those who wait, after their board woke."""

    def __init__(self, store: ImageStore, source: Repository, layer: Descriptor, diff_id: str):
        self._store = store
        self._source = source
        self.layer = layer
        self.diff_id = diff_id
        self.cancel = Cancellation()
        self.done = False
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._boards: list[ProgressBoard] = []
        self._received = False
        self._begun = False
        self._ended = threading.Event()
        self._open = 2  # the thread that receives, and the one that unpacks

    # -- those who wait -------------------------------------------------------------------------

    def watch(self, board: ProgressBoard) -> None:
        with self._lock:
            self._boards.append(board)

    def leave(self, board: ProgressBoard) -> None:
        """Wait no longer; without anybody who waits the transfer ends."""
        with self._lock:
            self._boards.remove(board)
            if self._boards or self.done:
                return
        self.cancel.cancel()

    @property
    def watched(self) -> bool:
        return bool(self._boards)

    def wait_if_cancelled(self) -> None:
        """Wait until a transfer that nobody wants has taken away what it made."""
        if self.cancel.done and self._begun:
            self._ended.wait(_FAREWELL)

    def _say(self, text: str) -> None:
        for board in tuple(self._boards):
            board.say(progress.status(text, short(self.layer.digest)))

    def _tell(self, text: str, current: int) -> None:
        message = progress.amount(text, short(self.layer.digest), current, self.layer.size)
        for board in tuple(self._boards):
            board.tell(message, last=current == self.layer.size)

    # -- the two threads ------------------------------------------------------------------------

    def receive(self, unpackers: WorkerPool) -> None:
        """Fetch the blob; unpacking begins meanwhile."""
        begun = False
        self._begun = True
        try:
            self.cancel.check()
            with self._store.blobs.writer() as blob:
                arriving = GrowingFile(blob.reader())
                unpackers.submit(lambda: self.unpack(arriving))
                begun = True

                def told(there: int) -> None:
                    arriving.advance(there)
                    self._tell("Downloading", there)

                try:
                    receive(self._source, self.layer, blob, self.cancel, told)
                    self._say("Verifying Checksum")
                    blob.commit()
                except BaseException as error:
                    arriving.fail(error)
                    raise
            self._say("Download complete")
            self._received = True
            arriving.finish()
        except BaseException as error:  # noqa: BLE001 - handed to those who wait
            if not begun:
                self._settle(error)  # for the thread that will not unpack
            self._settle(error)
        else:
            self._settle(None)

    def unpack(self, arriving: GrowingFile) -> None:
        """Unpack what comes. A layer that is there already is left."""
        try:
            if not self._store.layers.has(self.diff_id):
                self._store.layers.extract(_Progress(arriving, self._unpacked), self.diff_id)
        except BaseException as error:  # noqa: BLE001 - handed to those who wait
            self._settle(error)
            self.cancel.cancel()
        else:
            self._settle(None)
        finally:
            arriving.close()

    def _unpacked(self, position: int) -> None:
        """Tell of it as soon as the other thread has nothing more to tell."""
        if self._received:
            self._tell("Extracting", position)

    def begin_unpacking(self, unpackers: WorkerPool) -> None:
        """The blob is there and was not unpacked: do that alone."""
        self._open, self._begun, self._received = 1, True, True
        arriving = GrowingFile(self._store.blobs.open(self.layer.digest))
        arriving.advance(self.layer.size)
        arriving.finish()
        unpackers.submit(lambda: self.unpack(arriving))

    def _settle(self, error: BaseException | None) -> None:
        with self._lock:
            self._open -= 1
            if error is not None and (self.error is None or isinstance(self.error, Cancelled)):
                self.error = error
            if self._open:
                return
            self.done = True
            boards = tuple(self._boards)
        self._ended.set()
        if self.error is not None and not isinstance(self.error, JaulaError | OSError):
            log.error("unexpected error in a transfer", exc_info=self.error)
        if self.error is None:
            self._say("Pull complete")
        for board in boards:
            board.wake()


class _Progress:
    """A source that says how far it was read."""

    def __init__(self, source: GrowingFile, told: Callable[[int], None]) -> None:
        self._source = source
        self._told = told

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        if data:
            self._told(self._source.position)
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
        """The transfer of a layer, watched by ``board``; whether it was begun for this call."""
        key = layer.digest, diff_id
        with self._lock:
            running = self._running.get(key)
            if running is not None and not running.done and not running.cancel.done:
                running.watch(board)
                return running, False
            transfer = Transfer(self._store, source, layer, diff_id)
            transfer.watch(board)
            self._running[key] = transfer
        if self._store.blobs.size(layer.digest) == layer.size:
            transfer.begin_unpacking(self._unpackers)
            return transfer, True
        if self._receivers.busy:
            board.say(progress.status("Waiting", short(layer.digest)))
        self._receivers.submit(lambda: transfer.receive(self._unpackers))
        return transfer, True

    def leave(self, transfer: Transfer, board: ProgressBoard) -> None:
        """Wait no longer for a transfer; it is forgotten when it is over."""
        with self._lock:
            transfer.leave(board)
            key = transfer.layer.digest, transfer.diff_id
            if self._running.get(key) is transfer and (transfer.done or not transfer.watched):
                del self._running[key]


def raised(error: BaseException) -> JaulaError:
    """A failure of a transfer as one that may be raised in the thread of each who waited."""
    if isinstance(error, JaulaError):
        return error
    return Unavailable(f"a layer cannot be stored: {error}")
