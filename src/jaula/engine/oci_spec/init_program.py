"""The init program of the host that ``--init`` starts before the program: tini or catatonit."""

from __future__ import annotations

import os

from jaula.errors import InvalidRequest

_PROGRAMS = (
    "/usr/bin/docker-init",
    "/usr/bin/tini-static",
    "/usr/libexec/podman/catatonit",
    "/usr/bin/catatonit",
)


def init_program() -> str:
    """Return the path of a small static init program of the host, for ``--init``.

    :raises InvalidRequest: when none is installed.
    """
    for path in _PROGRAMS:
        if os.access(path, os.X_OK):
            return path
    raise InvalidRequest(
        "--init needs a static init program, and none is installed",
        hint="install the package tini or catatonit",
    )
