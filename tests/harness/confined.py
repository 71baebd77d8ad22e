"""What the kernel says about a sandboxed process: the contract of each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from jaula.sandbox.sandbox_limits import Limits

_INTERPRETER = 1 << 30  # bytes of addresses that an interpreter with its modules has at most
_OWN_VARIABLES = {"LC_ALL", "PATH", "MALLOC_ARENA_MAX"}


def status(pid: int | str) -> dict[str, str]:
    """Return the rows of proc_pid_status(5)."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def limits(pid: int) -> dict[str, tuple[str, str]]:
    """Return soft and hard limit of each row of proc_pid_limits(5)."""
    rows = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()[1:]
    return {row[:26].strip(): (row[26:].split()[0], row[26:].split()[1]) for row in rows}


def descriptors(pid: int) -> Iterator[str]:
    """Yield the kernel's names of the open files, without the numbers of sockets and pipes."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        name = os.readlink(f"/proc/{pid}/fd/{fd}")
        yield name if name.startswith("/") else name.partition(":")[0]


def check(pid: int, bounds: Limits, *, held: set[str], uid: int = 65534) -> None:
    """Check what a sandboxed process has given up. ``held`` has the names of its open files."""
    check_rights(pid, uid)
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii").strip() == "800"
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    assert {each.partition("=")[0] for each in variables if each} <= _OWN_VARIABLES
    assert set(descriptors(pid)) == held
    _check_limits(limits(pid), bounds)


def check_rights(pid: int, uid: int = 65534) -> None:
    """Check that a process has no rights of root, no way to gain them, and a filter."""
    facts = status(pid)
    assert facts["Uid"].split() == facts["Gid"].split() == [str(uid)] * 4
    assert facts["Groups"] == ""
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(facts[name], 16) == 0, name
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0  # not dumpable: no process of nobody's traces it


def _check_limits(found: dict[str, tuple[str, str]], bounds: Limits) -> None:
    none = ("0", "0")
    for name in ("Max core file size", "Max locked memory", "Max msgqueue size"):
        assert found[name] == none, name
    assert found["Max open files"] == (str(bounds.descriptors),) * 2
    assert found["Max stack size"] == (str(8 << 20),) * 2
    addresses = {int(value) for value in found["Max address space"]}
    assert len(addresses) == 1
    assert bounds.memory < addresses.pop() <= bounds.memory + _INTERPRETER
    if bounds.processor:
        time = (str(bounds.processor), str(bounds.processor + 2))
        assert found["Max cpu time"] == time
