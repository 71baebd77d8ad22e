"""An engine in which a migration kills a process at a chosen step.

    python migration_faults.py FAULT daemon [FLAG...]

FAULT is a file. While it has ``STEP:TARGET``, the engine that reaches the step sends SIGKILL to the
target: engine, shim, helper or criu of this engine. A step is a message that was sent or received,
or a phase that was recorded: ``sent Commit``, ``received Ready``, ``recorded given``, ``held``.
``sent file`` and ``received file`` are within the first file of the checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

FAULT = Path(sys.argv[1]) if __name__ == "__main__" else Path()

SOURCE = (
    "received Verdict",
    "received Prepared",
    "recorded moving",
    "sent BeginRestore",
    "received RestoreBegun",
    "sent file",
    "held",
    "sent Restore",
    "received Ready",
    "recorded given",
    "sent Commit",
    "received Running",
    "recorded moved",
)
TARGET = (
    "sent Verdict",
    "sent Prepared",
    "received BeginRestore",
    "sent RestoreBegun",
    "received file",
    "received Restore",
    "sent Ready",
    "received Commit",
    "recorded received",
    "sent Running",
)
"""Steps at which the engine of either side is killed, in their order."""

HELD = (
    "held",
    "sent Restore",
    "received Ready",
    "recorded given",
    "sent Commit",
    "received Running",
)
"""Steps of the source at which shim, helper and CRIU exist and hold the container."""
EARLY = ("sent RestoreBegun", "received Restore")
"""Steps of the target at which shim, helper and CRIU exist and wait for the images."""
RESTORED = ("sent Ready", "received Commit", "recorded received")
"""Steps of the target at which shim, helper and CRIU exist and hold the container."""


def reach(step: str) -> None:
    """Kill the target if this is the step."""
    try:
        chosen, _, target = FAULT.read_text().partition(":")
    except FileNotFoundError:
        return
    if chosen != step:
        return
    FAULT.unlink()
    pids = {"engine": [os.getpid()]}.get(target) or processes(target)
    Path(f"{FAULT}.done").write_text(f"{step}:{target} {pids}")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    while any(_alive(pid) for pid in pids):
        time.sleep(0.001)


def processes(kind: str) -> list[int]:
    """Return the shims, helpers or CRIU processes of this engine."""
    table: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = (entry / "stat").read_text()
                name = text.partition("(")[2].rpartition(")")[0]
                table[int(entry.name)] = int(text.rpartition(")")[2].split()[1]), name
    zygotes = {pid for pid, (parent, _) in table.items() if parent == os.getpid()}
    shims = {p for p, (up, name) in table.items() if name == "jaula-shim" and up in zygotes}
    helpers = {p for p, (up, name) in table.items() if name == "jaula-shim" and up in shims}
    below = {p for p, (up, name) in table.items() if up in helpers}
    criu = {p for p in table if (p in below or table[p][0] in below) and _is_criu(p)}
    return sorted({"shim": shims, "helper": helpers, "criu": criu}[kind])


def _is_criu(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name == "criu"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def replace_all() -> None:
    from jaula.engine.model.container_store import ContainerStore
    from jaula.features.migration import container_hold, data_stream, held_container
    from jaula.features.migration.migration_channel import Channel
    from jaula.features.migration.migrations import Migration
    from jaula.spec.migration import DataKind

    original_send, original_receive = Channel.send, Channel.receive

    async def send(self: Any, message: Any) -> None:
        await original_send(self, message)
        reach(f"sent {type(message).__name__}")

    async def receive(self: Any) -> Any:
        message = await original_receive(self)
        reach(f"received {type(message).__name__}")
        return message

    Channel.send = send  # type: ignore[method-assign]
    Channel.receive = receive  # type: ignore[method-assign]

    original_save = ContainerStore.save
    phases: dict[str, str] = {}

    def save(self: Any, container: Any) -> None:
        original_save(self, container)
        migration = container.record.migration
        phase = str(migration.phase) if migration is not None else ""
        if phases.get(container.id, "") != phase:
            phases[container.id] = phase
            if phase != "received":  # part of a transaction
                reach(f"recorded {phase}")

    ContainerStore.save = save  # type: ignore[method-assign]

    original_commit = Migration._accept_commit

    def accept_commit(self: Any, *arguments: Any) -> None:
        original_commit(self, *arguments)
        reach("recorded received")

    Migration._accept_commit = accept_commit  # type: ignore[method-assign]

    original_ports = container_hold.set_ports

    def set_ports(record: Any, *, up: bool) -> None:
        original_ports(record, up=up)
        if not up:
            reach("held")

    held_container.hold.set_ports = set_ports

    original_write = data_stream.DataWriter.write
    original_head = data_stream.DataReader.read_head

    def write(self: Any, kind: Any, *arguments: Any) -> None:
        original_write(self, kind, *arguments)
        if kind is DataKind.DATA:
            reach("sent file")

    def read_head(self: Any) -> Any:
        head = original_head(self)
        if head[0] is DataKind.DATA:
            reach("received file")
        return head

    data_stream.DataWriter.write = write  # type: ignore[method-assign]
    data_stream.DataReader.read_head = read_head  # type: ignore[method-assign]


if __name__ == "__main__":
    del sys.path[0], sys.argv[1]
    replace_all()
    from jaula.cli.main import run_and_exit

    run_and_exit()
