"""Pressure stall information of a v2 cgroup.

Source: kernel ``accounting/psi.rst``: lines ``some avg10=0.00 avg60=0.00 avg300=0.00 total=0``.
Averages are percent, the total is microseconds. Absent without CONFIG_PSI or with ``psi=0``.
"""

from __future__ import annotations

import errno

from jaula.cgroups.cgroup_driver import Pressure, PressureLine
from jaula.cgroups.cgroup_files import Reader


def stats(read: Reader, resource: str) -> Pressure | None:
    """Return the pressure of ``cpu``, ``memory`` or ``io``, or None if it is not counted."""
    try:
        text = read(f"{resource}.pressure")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # built in but disabled
            return None
        raise
    return None if text is None else parse(text)


def parse(text: str) -> Pressure:
    """Parse the text of a pressure file; a malformed line counts as zero."""
    lines = {"some": PressureLine(), "full": PressureLine()}
    for line in text.splitlines():
        kind, *pairs = line.split()
        values = dict(pair.partition("=")[::2] for pair in pairs)
        try:
            lines[kind] = PressureLine(
                avg10=float(values["avg10"]),
                avg60=float(values["avg60"]),
                avg300=float(values["avg300"]),
                total=int(values["total"]),
            )
        except (KeyError, ValueError):
            continue
    return Pressure(some=lines["some"], full=lines["full"])
