"""The amounts of the machine that callers share, read once.

Sources: proc_meminfo(5), ``kernel.threads-max`` and ``fs.nr_open`` in proc_sys_kernel(5) and
proc_sys_fs(5), statvfs(3).
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from jaula.engine.authz.request_ceilings import Machine

_PROC = Path("/proc")


@cache
def read_machine(root: Path, pids_limit: int) -> Machine:
    """Return the amounts of this machine, and of the disk of the engine's directory ``root``."""
    memory = re.search(r"^MemTotal:\s+(\d+) kB", (_PROC / "meminfo").read_text(), re.MULTILINE)
    if memory is None:
        raise RuntimeError("/proc/meminfo has no line MemTotal")
    disk = os.statvfs(root)
    return Machine(
        memory=int(memory[1]) << 10,
        threads=int((_PROC / "sys/kernel/threads-max").read_text()),
        open_files=int((_PROC / "sys/fs/nr_open").read_text()),
        disk=disk.f_blocks * disk.f_frsize,
        pids_limit=pids_limit,
    )
