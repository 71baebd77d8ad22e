"""One operation on a store, in a process that is killed at a chosen instruction of it.

    python -m harness.crash_injection DIRECTORY STEP OPERATION [ARGUMENT...]

Instructions of the interpreter are counted in every thread, in code of jaula's storage and images.
At the instruction STEP the process kills itself like ``kill -9``. With STEP 0 it completes and
prints the number of instructions. ``JAULA_LAYER_FORMAT`` is the form of new layers.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

COUNTED = (os.sep + "jaula" + os.sep + "images", os.sep + "jaula" + os.sep + "storage")


class OpcodeCounter:
    """Counts instructions."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._counter = itertools.count(1)
        self.now = 0

    def start(self) -> None:
        threading.settrace(self._frame)
        sys.settrace(self._frame)

    def stop(self) -> None:
        sys.settrace(None)

    def _frame(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not any(part in frame.f_code.co_filename for part in COUNTED):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._instruction

    def _instruction(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self.now = next(self._counter)
            if self.now == self._last:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._instruction


def main() -> None:
    directory, last, operation = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    arguments = sys.argv[4:]
    from jaula.config import Paths
    from jaula.images.store.image_store import ImageStore
    from jaula.storage.layers.layer_store import LayerStore

    paths = Paths(directory / "root", directory / "run")
    form: Any = os.environ.get("JAULA_LAYER_FORMAT", "directory")
    layers = LayerStore(paths, format=form)
    images = ImageStore(paths, layers)
    work = OPERATIONS[operation]
    clock = OpcodeCounter(last)
    prepared = work(paths, layers, images, arguments)
    clock.start()
    try:
        prepared()
    finally:
        clock.stop()
    print(clock.now)


def load(paths: Any, layers: Any, images: Any, arguments: list[str]) -> Any:
    """Load an archive."""
    from jaula.images.archive.load_archive import load

    data = open(arguments[0], "rb")  # noqa: SIM115 - until the process ends
    return lambda: list(load(images, data))


def pull(paths: Any, layers: Any, images: Any, arguments: list[str]) -> Any:
    """Pull from a registry."""
    from harness.puller import Puller

    puller = Puller(paths.root.parent)
    return lambda: puller.pull(arguments[0])


def remove(paths: Any, layers: Any, images: Any, arguments: list[str]) -> Any:
    """Remove images."""
    return lambda: [images.remove(name) for name in arguments]


def tag(paths: Any, layers: Any, images: Any, arguments: list[str]) -> Any:
    """Give an image another name."""
    return lambda: images.tag(arguments[0], arguments[1])


def repair(paths: Any, layers: Any, images: Any, arguments: list[str]) -> Any:
    """Extract an image's layers again."""
    from jaula.images.store import repair as store_repair

    image = images.resolve(arguments[0])
    pairs = store_repair.layer_pairs(images, image.manifest)
    return lambda: [store_repair.unpack(images, blob.digest, layer) for blob, layer in pairs]


def create(paths: Any, layers: Any, images: Any, arguments: list[str]) -> Any:
    """Create a snapshot."""
    driver = _driver(paths, layers, arguments[0])
    size = int(arguments[2]) if len(arguments) > 2 else None
    return lambda: driver.create("new", images.resolve(arguments[1]).layers, size=size)


def discard(paths: Any, layers: Any, images: Any, arguments: list[str]) -> Any:
    """Remove a snapshot."""
    driver = _driver(paths, layers, arguments[0])
    return lambda: driver.remove("old")


def _driver(paths: Any, layers: Any, name: str) -> Any:
    from jaula.storage.drivers.driver_choice import open_driver

    return open_driver(name, paths, layers)


OPERATIONS = {work.__name__: work for work in (load, pull, remove, tag, repair, create, discard)}

if __name__ == "__main__":
    main()
