"""Whether we are in the initial user namespace: user_namespaces(7), /proc/self/uid_map."""

from __future__ import annotations

WHOLE = [0, 0, 0xFFFFFFFF]
"""The map of the initial user namespace: every id is itself."""

_known: list[bool] = []


def is_initial() -> bool:
    """Whether every id is itself here, so that a root has the host root's rights.

    Asked once: who enters another namespace executes itself anew afterwards.
    """
    if not _known:
        with open("/proc/self/uid_map", "rb") as file:
            rows = [[int(number) for number in line.split()] for line in file]
        _known.append(rows == [WHOLE])
    return _known[0]
