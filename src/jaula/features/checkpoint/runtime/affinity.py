"""The processors that tasks are bound to, which CRIU does not save.

A file beside CRIU's images has the masks of those tasks that may not use all processors. A task
that had all of them may use all of the host on which it is restored.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping

import msgspec

from jaula.features.checkpoint.runtime.criu_images import AFFINITY, MAX_IMAGE, invalid, open_file
from jaula.runtime.init.set_rlimits import cpu_list

_ONLINE = "/sys/devices/system/cpu/online"
_decode = msgspec.json.Decoder(dict[int, tuple[int, ...]]).decode


def write(directory: int, pids: Collection[int]) -> None:
    """Write the masks of all tasks of some processes, by their ids in the container."""
    with open(_ONLINE, encoding="ascii") as file:
        every = cpu_list(file.read())
    masks = {
        inner: sorted(mask)
        for inner, task in _tasks(pids)
        if (mask := os.sched_getaffinity(task)) < every
    }
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(AFFINITY, flags, 0o644, dir_fd=directory), "wb") as file:
        file.write(msgspec.json.encode(masks))


def read(directory: int) -> dict[int, tuple[int, ...]]:
    """Return the masks of a checkpoint; none if it has no such file.

    :raises InvalidRequest: when the file is malformed.
    """
    if AFFINITY not in os.listdir(directory):
        return {}
    with open(open_file(directory, AFFINITY), "rb") as file:
        data = file.read(MAX_IMAGE + 1)
    try:
        return _decode(data if len(data) <= MAX_IMAGE else b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise invalid(f"{AFFINITY}: {error}") from None


def apply(pids: Collection[int], masks: Mapping[int, tuple[int, ...]]) -> None:
    """Bind the tasks of some processes to their former processors, as far as they may use them."""
    for inner, task in _tasks(pids):
        allowed = os.sched_getaffinity(task)
        mask = allowed & set(masks.get(inner, ()))
        if mask and mask != allowed:
            os.sched_setaffinity(task, mask)


def _tasks(pids: Collection[int]) -> Iterator[tuple[int, int]]:
    """Yield the id in the container and the id on the host of each task."""
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has exited
            for name in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{name}/status", encoding="utf-8") as file:
                    status = file.read()
                if "\nState:\tZ" not in status:
                    inner = status.partition("\nNSpid:\t")[2].partition("\n")[0].split()[-1]
                    yield int(inner), int(name)
