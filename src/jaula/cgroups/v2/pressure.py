"""Pressure stall information of a v2 cgroup.

Source: kernel ``accounting/psi.rst``: lines ``some avg10=0.00 avg60=0.00 avg300=0.00 total=0``;
averages are percent, the total is microseconds. Not there without CONFIG_PSI or with ``psi=0``.
"""

from __future__ import annotations

import errno

from jaula.cgroups.files import Reader
from jaula.cgroups.protocol import Pressure, PressureLine


def stats(read: Reader, resource: str) -> Pressure | None:
    """``resource`` is ``cpu``, ``memory`` or ``io``; None where the kernel does not count it."""
    try:
        text = read(f"{resource}.pressure")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # built in, but switched off
            return None
        raise
    return None if text is None else parse(text)


def parse(text: str) -> Pressure:
    """The file's text; a line of another form counts as zero."""
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
