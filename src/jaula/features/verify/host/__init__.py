"""The checks of ``jaula verify --host``: each has a file and a line in :data:`TABLE`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jaula import feature
from jaula.config import DEFAULT_ROOT, DEFAULT_RUN, DEFAULT_SOCKET
from jaula.features.verify.host import (
    api_socket,
    cgroup_trees,
    kernel_version,
    lsm,
    state_dirs,
    sysctls,
    user_namespaces,
)
from jaula.features.verify.host.host import Host
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result
from jaula.features.verify.verify import run_check

__all__ = ["TABLE", "Check", "Host", "of_engine", "verify"]


class Check(NamedTuple):
    """A check's description, and the function that yields its rows."""

    info: CheckInfo
    rows: Callable[[Host], Iterable[Result]]


TABLE: tuple[Check, ...] = (
    Check(kernel_version.INFO, kernel_version.check),
    Check(sysctls.INFO, sysctls.check),
    Check(lsm.INFO, lsm.check),
    Check(user_namespaces.INFO, user_namespaces.check),
    Check(cgroup_trees.INFO, cgroup_trees.check),
    Check(state_dirs.INFO, state_dirs.check),
    Check(api_socket.INFO, api_socket.check),
    *(Check(module.INFO, module.check) for module in feature.modules("host_checks")),
)
"""All checks, in the order of the report."""


def verify(host: Host) -> list[Result]:
    """Return every row of the report on the host."""
    return [
        row for info, check in TABLE for row in run_check(info.id, info.layer, partial(check, host))
    ]


def of_engine(address: str, root: str, image_policy: Mapping[str, Any] | None = None) -> Host:
    """Return the host as the engine at ``address`` uses it; ``root`` is '' if none runs.

    The runtime directory is the socket's if that contains containers.
    """
    socket = Path(address.removeprefix("unix://"))
    if not address.startswith("unix://"):
        socket = DEFAULT_SOCKET
    is_run_dir = (socket.parent / "containers").is_dir()
    return Host(
        root=Path(root) if root else DEFAULT_ROOT,
        run=socket.parent if is_run_dir else DEFAULT_RUN,
        socket=socket,
        image_policy=image_policy,
    )
