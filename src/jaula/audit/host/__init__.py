"""The checks of ``jaula verify --host``: one file and one line in :data:`TABLE` each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jaula.audit.about import About
from jaula.audit.host import directories, images, kernel, modules, settings, sockets, trees, users
from jaula.audit.host.facts import Host
from jaula.audit.row import Row
from jaula.audit.verify import rows_of
from jaula.config import DEFAULT_ROOT, DEFAULT_RUN, DEFAULT_SOCKET

__all__ = ["TABLE", "Check", "Host", "of_engine", "verify"]


class Check(NamedTuple):
    """What a check is for, and the function that gives its rows."""

    about: About
    rows: Callable[[Host], Iterable[Row]]


TABLE: tuple[Check, ...] = (
    Check(kernel.ABOUT, kernel.check),
    Check(settings.ABOUT, settings.check),
    Check(modules.ABOUT, modules.check),
    Check(users.ABOUT, users.check),
    Check(trees.ABOUT, trees.check),
    Check(directories.ABOUT, directories.check),
    Check(sockets.ABOUT, sockets.check),
    Check(images.ABOUT, images.check),
)
"""In the order of the report."""


def verify(host: Host) -> list[Row]:
    """Every row of the host's proof."""
    return [
        row
        for about, check in TABLE
        for row in rows_of(about.id, about.layer, partial(check, host))
    ]


def of_engine(address: str, root: str, image_policy: Mapping[str, Any] | None = None) -> Host:
    """The host as the engine at an address uses it; ``root`` is empty where none runs.

    The directory of what does not survive a boot is the socket's, where it holds containers.
    """
    socket = Path(address.removeprefix("unix://"))
    if not address.startswith("unix://"):
        socket = DEFAULT_SOCKET
    beside = (socket.parent / "containers").is_dir()
    return Host(
        root=Path(root) if root else DEFAULT_ROOT,
        run=socket.parent if beside else DEFAULT_RUN,
        socket=socket,
        image_policy=image_policy,
    )
