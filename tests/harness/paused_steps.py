"""An engine that pauses its work at a chosen step, until a test lets it go on.

    python paused_steps.py STEP daemon [FLAG...]

STEP is a file. While it has the name of a step, the work that reaches the step appends a line to
it and waits until the file is gone. The engine serves other requests meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import containers
from harness.faulty_engine import FaultyEngine

PAUSED = "\npaused"


class PausedEngine(FaultyEngine):
    """An engine that can be paused at a step."""

    script = "paused_steps.py"

    @contextmanager
    def pausing(self, step: str) -> Iterator[Callable[[], None]]:
        """Yield a function that waits for the work; the work goes on after the block."""
        self.fault.write_text(step)
        try:
            yield lambda: containers.eventually(
                lambda: self.fault.read_text().endswith(PAUSED), f"the step {step}"
            )
        finally:
            self.fault.unlink()


def main(fault: Path) -> None:
    from jaula.engine.containers import profile_document
    from jaula.engine.containers.containers import Containers
    from jaula.engine.containers.exit import ExitHandler
    from jaula.engine.containers.start import Starter
    from jaula.engine.images.images import Images
    from jaula.engine.networks.connect import NetworkConnector
    from jaula.engine.volumes.mount_sources import VolumeMounter
    from jaula.engine.volumes.volume_references import VolumeReferences
    from jaula.features.build.builder.cache_export import CacheExporter
    from jaula.features.checkpoint.checkpoint_store import CheckpointStore
    from jaula.features.edit import edit_container

    async def reach(step: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if fault.read_text() == step:
                fault.write_text(step + PAUSED)
                while fault.exists():  # noqa: ASYNC110 - another process removes it
                    await asyncio.sleep(0.005)

    def pause(owner: Any, name: str, step: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        async def replaced(*args: Any, **kwargs: Any) -> Any:
            await reach(step)
            return await original(*args, **kwargs)

        setattr(owner, name, replaced)

    def pause_thread(owner: Any, name: str, step: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def replaced(*args: Any, **kwargs: Any) -> Any:
            asyncio.run(reach(step))
            return original(*args, **kwargs)

        setattr(owner, name, replaced)

    pause_thread(CacheExporter, "_remove", "removal of an exported cache")
    pause_thread(CheckpointStore, "link", "link of a checkpoint")
    pause_thread(CheckpointStore, "verify", "verification of a checkpoint")
    pause(ExitHandler, "remove", "removal of a container")
    pause(edit_container, "_undo", "undo of an edit")
    pause(profile_document, "read", "parse of a profile")
    pause(Containers, "_cgroup_gone", "start that was authorized")
    pause(Starter, "start", "start by the engine")
    pause(NetworkConnector, "connect", "connect that was authorized")
    pause(VolumeMounter, "create_sources", "volumes that were authorized")
    pause(VolumeMounter, "undo", "undo of volumes")
    pause(VolumeReferences, "remove", "removal of a volume")
    pause(Images, "_remove", "removal of an image")
    pause(Images, "_remove_platforms", "removal of platforms")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    del sys.argv[1]
    main(path)
    from jaula.cli.main import run_and_exit

    run_and_exit()
