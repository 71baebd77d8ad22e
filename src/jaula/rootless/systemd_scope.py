"""The delegated cgroup of a rootless engine, from the user's systemd: cgroup v2 only.

Follows systemd's "Control Group APIs and Delegation" and cgroup-v2.rst "Delegation Containment".
The scope ``jaula-NAME.scope`` lives as long as the namespace holder, so containers stay in it when
engines come and go::

    jaula-NAME.scope/keeper      the namespace holder
    jaula-NAME.scope/engine      engines, their zygotes and shims, the network helper
    jaula-NAME.scope/jaula/ID    containers

An engine that was started in a leaf ``engine`` (``DelegateSubgroup=engine`` in the user's unit)
stays there.
"""

from __future__ import annotations

import os

from jaula import cgroups
from jaula.cgroups import ENGINE_LEAF
from jaula.cgroups.cgroup_path import own_cgroup
from jaula.errors import JaulaError

HOLDER_LEAF = "keeper"


def unit_name(holder_pid: int, started: str) -> str:
    """Return the scope of a holder, never that of a former one that systemd may still know. Pure.

    ``started`` is the start time of the process in /proc/PID/stat.
    """
    return f"jaula-{holder_pid}-{started}.scope"


def enter(holder_pid: int, *, new: bool) -> str:
    """Move this process, and a ``new`` holder, into the scope.

    Return '' or the reason of a failure.
    """
    tree = cgroups.unified_mount()
    if tree is None:
        return "cgroup v1 cannot be delegated to users: cgroup v2 is required"
    if cgroups.delegated_base(tree, _cgroup("self")) is not None:
        return ""
    try:
        from jaula.cgroups.systemd.bus import Address, Connection
        from jaula.cgroups.systemd.properties import scope_properties
    except ImportError as error:
        return f"systemd cannot be asked for a cgroup: {error}"
    unit = ""
    try:
        with Connection(Address.user()) as systemd:
            if new:
                unit = unit_name(holder_pid, _started(holder_pid))
                description = "containers of jaula"
                properties = scope_properties(unit, "app.slice", holder_pid, description, 2)
                systemd.start(unit, properties, holder_pid)
                _move(tree, _cgroup(str(holder_pid)), HOLDER_LEAF, holder_pid)
            base = _cgroup(str(holder_pid)).removesuffix(f"/{HOLDER_LEAF}")
            unit = base.rpartition("/")[2]
            os.makedirs(f"{tree}{base}/{ENGINE_LEAF}", 0o755, exist_ok=True)
            systemd.attach(unit, f"/{ENGINE_LEAF}", os.getpid())
    except JaulaError as error:
        return f"the user's systemd gives no cgroup: {error.message}"
    except OSError as error:
        return f"the cgroup of {unit} cannot be used: {error}"
    if cgroups.delegated_base(tree, _cgroup("self")) is None:
        return f"systemd did not put the engine into {unit}"
    return ""


def _started(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rpartition(")")[2].split()[19]


def _cgroup(process: str) -> str:
    with open(f"/proc/{process}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        return own_cgroup(file.read())


def _move(tree: str, base: str, leaf: str, pid: int) -> None:
    directory = f"{tree}{base}/{leaf}"
    os.makedirs(directory, 0o755, exist_ok=True)
    with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as file:
        file.write(str(pid))
