"""``verify --all`` at an interval, for the metrics of isolation.

The report is made by the command itself, in a process of its own with the lowest priority: it reads
the kernel, not the engine, and it takes a processor for a while.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from jaula.engine.system.jaula_process import environment
from jaula.features.metrics.hooks import engine_metrics
from jaula.features.metrics.isolation_metrics import IsolationRows
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from jaula.engine.engine import Engine
    from jaula.engine.hooks import EngineStart

_log = logging.getLogger("jaula.verification")
_TIMEOUT = 600.0  # seconds of one verification
_NICE = 19
_MAX_LAYERS = 256  # of the metric; the reports have about thirty
_PROGRAM = "import os, runpy, sys; os.nice({nice}); runpy.run_module('jaula', run_name='__main__')"


class _Row(msgspec.Struct):
    subject: str
    layer: str
    verdict: str


class Counts(NamedTuple):
    """The rows of a report by layer and verdict, and by container and verdict."""

    layers: dict[tuple[str, str], int]
    containers: dict[tuple[str, str], int]


def count(data: bytes) -> Counts:
    """Return the rows of ``verify --format json``. Pure.

    :raises ValueError: when it is not such a document.
    """
    try:
        rows = msgspec.json.decode(data or b"[]", type=tuple[_Row, ...])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the report cannot be read: {error}") from None
    layers: Counter[tuple[str, str]] = Counter()
    containers: Counter[tuple[str, str]] = Counter()
    for row in rows:
        verdict = row.verdict.lower()
        containers[row.subject, verdict] += 1
        key = (row.layer, verdict)
        if key in layers or len(layers) < _MAX_LAYERS:
            layers[key] += 1
    return Counts(dict(sorted(layers.items())), dict(containers))


async def start(engine: EngineStart) -> Verification:
    """Verify all containers of an engine at the interval of its settings."""
    interval = engine.engine.services.config.metrics_verify_interval
    verification = Verification(engine.engine, interval)
    verification.start()
    return verification


class Verification:
    """Verifies all containers again and again."""

    def __init__(self, engine: Engine, interval: float) -> None:
        """``interval`` is in seconds, between the ends and the beginnings."""
        self._engine = engine
        self._interval = interval
        self._tasks = BackgroundTasks(_log, "verification")

    def start(self) -> None:
        """Begin; the API must be served."""
        self._tasks.spawn(self._run())

    async def close(self) -> None:
        """Stop, and kill the process."""
        await self._tasks.close()

    async def _run(self) -> None:
        while True:
            started = time.monotonic()
            metrics = self._engine.service(engine_metrics)
            try:
                counts = count(await self._report())
            except (OSError, ValueError, TimeoutError) as error:
                _log.warning("the containers are not verified: %s", error or "it takes too long")
                last = metrics.isolation or IsolationRows({}, {}, 0.0, 0.0)
                metrics.isolation = last._replace(failed=True)
            else:
                metrics.isolation = IsolationRows(
                    counts.layers, counts.containers, time.time(), time.monotonic() - started
                )
            await asyncio.sleep(self._interval)

    async def _report(self) -> bytes:
        """Return the report in JSON.

        :raises OSError: when the process cannot be started.
        :raises ValueError: when the command fails.
        """
        socket = self._engine.services.engine_sockets.paths[0]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-s", "-P", "-X", "utf8", "-c", _PROGRAM.format(nice=_NICE)),
            *("-H", f"unix://{socket}", "verify", "--all", "--no-trace", "--format", "json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), _TIMEOUT)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        empty = process.returncode == 1 and not output.strip()  # 1: a row fails, or an error
        if process.returncode not in (0, 1) or empty:
            last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise ValueError(f"verify ended with status {process.returncode}: {last[:200]}")
        return output
