"""``docker top``: the output of the host's ``ps``, limited to a container's processes.

The host has no names for the ids of a container's user namespace, and ``ps`` truncates their
numbers. So the columns of users have the ids that the processes have inside, as names of the
container's passwd file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

from jaula.engine.containers.container_cgroup import open_cgroup
from jaula.engine.containers.user_lookup import parse_passwd, read_user_file
from jaula.engine.userns import join
from jaula.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

_OVERFLOW = 65534  # an id without a mapping
_USER_COLUMNS = {
    **dict.fromkeys(("RUSER", "RUID"), 0),
    **dict.fromkeys(("UID", "USER", "EUSER", "EUID"), 1),
    **dict.fromkeys(("SUSER", "SUID"), 2),
    **dict.fromkeys(("FUSER", "FUID"), 3),
}
"""The columns of ``ps`` that have a user, by the place of its id in ``/proc/PID/status``."""
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
        pids = set(cgroup.pids()) or _namespace_pids(join.process_in(container, "pid"))
    ids = user_ids(pids)  # of processes that exit while ps runs, too
    # Without -q, words such as ``-o pid,cmd`` select the processes of this terminal only. Some
    # words cannot be combined with -q.
    status, output, errors = await _ps((*words, "-q", ",".join(map(str, sorted(pids))) or "0"))
    if status:
        status, output, errors = await _ps(words)
    if status:
        raise InvalidRequest(f"ps: {errors.decode(errors='replace').strip()}")
    document = parse(output.decode(errors="replace"), pids)
    if not container.record.resolved.namespaces.user.host:
        numeric = not any(word[0] == "-" and {"f", "F"} & set(word) for word in words)
        name_users(document, ids | user_ids(pids), _names(container), numeric=numeric)
    return document


def _names(container: Container) -> dict[int, str]:
    """Return the users of the container's passwd file by id, without names that are not plain."""
    try:
        root = join.open_root(container)
    except Unsupported:
        return {}  # the process of an external runtime is not in the container
    try:
        entries = parse_passwd(read_user_file(root, "etc/passwd"))
        names: dict[int, str] = {}
        for entry in entries:
            if _WORD.fullmatch(entry.name):
                names.setdefault(entry.uid, entry.name)
        return names
    except InvalidRequest:
        return {}  # the container has made the file unreadable, which concerns its names only
    finally:
        os.close(root)


def user_ids(pids: Iterable[int], proc: str = "/proc") -> dict[int, tuple[int, ...]]:
    """Return the real, effective, saved and file system uid of each process, as it sees them.

    Processes that have exited are left out.
    """
    result = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            with open(f"{proc}/{pid}/status", encoding="utf-8", errors="replace") as file:
                ids = next(line.split()[1:5] for line in file if line.startswith("Uid:"))
            with open(f"{proc}/{pid}/uid_map", encoding="ascii") as file:
                rows = [tuple(map(int, line.split())) for line in file]
            result[pid] = tuple(_inside(int(text), rows) for text in ids)
    return result


def _inside(uid: int, rows: Iterable[tuple[int, ...]]) -> int:
    for inside, outside, count in rows:
        if outside <= uid < outside + count:
            return uid - outside + inside
    return _OVERFLOW


def name_users(
    document: dict[str, Any],
    ids: Mapping[int, tuple[int, ...]],
    names: Mapping[int, str],
    *,
    numeric: bool,
) -> None:
    """Replace the users of the rows of :func:`parse` by those of the container.

    ``ids`` has the uids of each process. ``numeric`` says that ``UID`` is a number, as it is
    without ``-f``.
    """
    titles: list[str] = document["Titles"]
    pid = titles.index("PID")
    for column, title in enumerate(titles):
        kind = _USER_COLUMNS.get(title)
        if kind is None:
            continue
        as_number = title.endswith("UID") and (numeric or title != "UID")
        for row in document["Processes"]:
            if (uids := ids.get(int(row[pid]))) is not None:
                uid = uids[kind]
                row[column] = str(uid) if as_number else names.get(uid, str(uid))


def _namespace_pids(init: int) -> set[int]:
    """Return the processes in the pid namespace of an init process; for hosts without cgroups."""
    pids: set[int] = set()
    if not init:
        return pids  # the process of an external runtime is not in the container
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


def ps_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for ``ps``: those of the search path, the time zone and the language.

    ``ps`` reads many others. With ``COLUMNS`` it cuts lines, with ``PS_FORMAT`` it has other
    columns. Pure.
    """
    return {
        name: value
        for name, value in variables.items()
        if name in ("PATH", "TZ", "LANG") or name.startswith("LC_")
    }


async def _ps(words: Sequence[str]) -> tuple[int | None, bytes, bytes]:
    """Return exit status, standard output and standard error of ``ps``."""
    try:
        ps = await asyncio.create_subprocess_exec(
            "ps",
            *words,
            env=ps_environment(os.environ),
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
