"""What the runtime is given by the other parts: cgroups, logs, seccomp programs.

Imported in the zygote, so it must stay light.
"""

from __future__ import annotations

from typing import cast

from jaula.runtime.ports import CgroupDriver, Parts


def runtime_parts() -> Parts:
    """The parts for this host; loads what a shim must not import later."""
    from jaula.cgroups import detect
    from jaula.confine.seccomp import program
    from jaula.logs import open_writer

    return Parts(cast(CgroupDriver, detect()), open_writer, program)
