"""A delegated cgroup of the user's own systemd for keeper, engine and containers: cgroup v2 only.

Follows systemd's "Control Group APIs and Delegation" and cgroup-v2.rst "Delegation Containment".
The keeper's scope ``jaula-NAME.scope`` lives as long as the keeper, so containers stay in it when
engines come and go::

    jaula-NAME.scope/keeper      the keeper
    jaula-NAME.scope/engine      engines, their zygotes and shims, what joins the network
    jaula-NAME.scope/jaula/ID    containers

An engine that was started in a leaf ``engine`` already (``DelegateSubgroup=engine`` in a unit of
the user's) stays there.
"""

from __future__ import annotations

import os

from jaula import cgroups
from jaula.cgroups import ENGINE_LEAF
from jaula.cgroups.cgroup_path import own_cgroup
from jaula.errors import JaulaError

HOLDER_LEAF = "keeper"


def unit_name(keeper: int, started: str) -> str:
    """The scope of a keeper, never that of a former one that systemd may still know. Pure.

    ``started`` is the moment that process began, as /proc/PID/stat has it.
    """
    return f"jaula-{keeper}-{started}.scope"


def enter(keeper: int, *, new: bool) -> str:
    """Put this process, and a ``new`` keeper, where it may make cgroups; "" or why that failed."""
    tree = cgroups.unified()
    if tree is None:
        return "cgroup v1 is not delegated to users: that takes cgroup v2"
    if cgroups.delegated_base(tree, _cgroup("self")) is not None:
        return ""
    try:
        from jaula.cgroups.systemd.bus import Address, Connection
        from jaula.cgroups.systemd.properties import of_scope
    except ImportError as error:
        return f"systemd cannot be asked for a cgroup: {error}"
    unit = ""
    try:
        with Connection(Address.user()) as systemd:
            if new:
                unit = unit_name(keeper, _started(keeper))
                about = "containers of jaula"
                systemd.start(unit, of_scope(unit, "app.slice", keeper, about, 2))
                _move(tree, _cgroup(str(keeper)), HOLDER_LEAF, keeper)
            base = _cgroup(str(keeper)).removesuffix(f"/{HOLDER_LEAF}")
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
