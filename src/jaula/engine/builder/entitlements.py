"""What a RUN asks for beyond its build's limits, and who allows it. Pure but for ``judge``.

A Dockerfile may be a stranger's: that the one who builds has a right does not mean that the file
has it. So both are needed, the build's ``allow`` and the caller's rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.relaxations import Privilege, Relaxation
from jaula.errors import NotAuthorized
from jaula.images.build.dockerfile.ast import Network, Security

if TYPE_CHECKING:
    from jaula.images.build.dockerfile.ast import Run
    from jaula.spec.api import HostConfig
    from jaula.spec.build import BuildOptions

Judge = Callable[[tuple[Privilege, ...]], object]
"""Raises for what the caller's rule does not grant."""

_NETWORK = "network.host"
_INSECURE = "security.insecure"


def limits_of(run: Run, options: BuildOptions, judge: Judge) -> HostConfig:
    """The limits and modes of one RUN.

    :raises NotAuthorized: the build does not allow it, or the caller may not ask for it.
    """
    host = options.host
    if run.network is Network.NONE:
        host = msgspec.structs.replace(host, network_mode="none")
    elif run.network is Network.HOST and host.network_mode != "host":
        _check(options, _NETWORK, "RUN --network=host")
        judge((Privilege(Relaxation.HOST_NAMESPACE, "network"),))
        host = msgspec.structs.replace(host, network_mode="host")
    if run.security is Security.INSECURE:
        _check(options, _INSECURE, "RUN --security=insecure")
        judge((Privilege(Relaxation.PRIVILEGED),))
        host = msgspec.structs.replace(host, privileged=True)
    return host


def _check(options: BuildOptions, entitlement: str, what: str) -> None:
    if entitlement not in options.allow:
        raise NotAuthorized(
            f"{what} is not allowed in this build", hint=f"build with --allow {entitlement}"
        )
