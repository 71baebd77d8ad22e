"""``docker top``: the output of the host's ``ps``, limited to a container's processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

from jaula.engine.containers.start import open_cgroup
from jaula.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

_WORD = re.compile(r"[A-Za-z0-9%:=,+_./-]+", re.ASCII)


async def top(services: Services, container: Container, ps_args: str) -> dict[str, Any]:
    """Return titles and rows of ``ps`` with ``ps_args`` (default ``-ef``).

    :raises InvalidRequest: when ``ps`` refuses the arguments or prints no pid.
    :raises Unsupported: when ``ps`` is not installed.
    """
    words = ps_args.split() or ["-ef"]
    if not all(_WORD.fullmatch(word) for word in words):
        raise InvalidRequest(f"invalid ps arguments: {ps_args!r}")
    with open_cgroup(services, container.record) as cgroup:
        pids = set(cgroup.pids()) or _namespace_pids(container.record.pid)
    # Without -q, words such as ``-o pid,cmd`` select the processes of this terminal only. Some
    # words cannot be combined with -q.
    status, output, errors = await _ps((*words, "-q", ",".join(map(str, sorted(pids))) or "0"))
    if status:
        status, output, errors = await _ps(words)
    if status:
        raise InvalidRequest(f"ps: {errors.decode(errors='replace').strip()}")
    return parse(output.decode(errors="replace"), pids)


def _namespace_pids(init: int) -> set[int]:
    """Return the processes in the pid namespace of an init process; for hosts without cgroups."""
    pids: set[int] = set()
    try:
        namespace = os.stat(f"/proc/{init}/ns/pid").st_ino
        if namespace == os.stat("/proc/self/ns/pid").st_ino:
            return {init}
    except OSError:
        return pids
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # exited meanwhile, or not accessible
                if os.stat(f"/proc/{name}/ns/pid").st_ino == namespace:
                    pids.add(int(name))
    return pids


async def _ps(words: Sequence[str]) -> tuple[int | None, bytes, bytes]:
    """Return exit status, standard output and standard error of ``ps``."""
    try:
        ps = await asyncio.create_subprocess_exec(
            "ps",
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise Unsupported("top needs the ps program", hint="install the package procps") from None
    output, errors = await ps.communicate()
    return ps.returncode, output, errors


def parse(output: str, pids: set[int]) -> dict[str, Any]:
    """Return the rows of ``output`` whose PID is in ``pids``.

    :raises InvalidRequest: when there is no PID column.
    """
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidRequest("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(fields)
    return {"Titles": titles, "Processes": rows}
