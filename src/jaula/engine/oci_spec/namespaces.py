"""Which namespaces a container has of its own, shares with the host or with another container.

Source: Docker's ``--userns --pid --ipc --uts --cgroupns --network``.

Facts about joining: a process may only use a namespace in which it has capabilities, and those
come from the user namespace that owns it. So a container that joins any namespace of another one
also joins that one's user namespace; two different ones cannot be joined at a time. A namespace
of the host's is owned by the initial user namespace: inside the container's own user namespace it
can be seen but not changed, which is what a person who shares it can be given safely.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec.api import HostConfig
from jaula.spec.runtime import Namespace

_CONTAINER = "container:"


class NamespaceMode(StrEnum):
    """How a namespace is had."""

    OWN = "own"
    HOST = "host"
    CONTAINER = "container"


class NamespaceChoice(msgspec.Struct, frozen=True):
    """One namespace; ``container`` is a name or id for :attr:`NamespaceMode.CONTAINER`."""

    kind: NamespaceMode = NamespaceMode.OWN
    container: str = ""

    @property
    def own(self) -> bool:
        return self.kind is NamespaceMode.OWN

    @property
    def host(self) -> bool:
        return self.kind is NamespaceMode.HOST


class NamespaceConfig(msgspec.Struct, frozen=True):
    """All of a container's namespaces. ``network`` is '' where no network is to be attached.

    Whether there is a network of that name is not known here.
    """

    user: NamespaceChoice = NamespaceChoice()
    pid: NamespaceChoice = NamespaceChoice()
    ipc: NamespaceChoice = NamespaceChoice()
    uts: NamespaceChoice = NamespaceChoice()
    cgroup: NamespaceChoice = NamespaceChoice()
    net: NamespaceChoice = NamespaceChoice()
    network: str = ""
    shareable_ipc: bool = False
    no_shm: bool = False

    def containers(self) -> dict[str, str]:
        """The containers that are joined: OCI namespace type to name or id."""
        shares = {"user": self.user, "pid": self.pid, "ipc": self.ipc, "network": self.net}
        return {
            kind: s.container for kind, s in shares.items() if s.kind is NamespaceMode.CONTAINER
        }


def decide(host: HostConfig) -> NamespaceConfig:
    """Read the modes of a request.

    :raises InvalidRequest: a mode or a network that does not exist, or modes that exclude each
        other.
    """
    net, network = _network(host.network_mode)
    sharing = NamespaceConfig(
        user=_share("userns", host.userns_mode, ("host", "auto", "keep-id", _CONTAINER)),
        pid=_share("pid", host.pid_mode, ("host", _CONTAINER)),
        ipc=_share("ipc", host.ipc_mode, ("host", _CONTAINER, "shareable", "none")),
        uts=_share("uts", host.uts_mode, ("host",)),
        cgroup=_share("cgroupns", host.cgroupns_mode, ("host",)),
        net=net,
        network=network,
        shareable_ipc=host.ipc_mode == "shareable",
        no_shm=host.ipc_mode == "none",
    )
    joined = set(sharing.containers().values())
    if len(joined) > 1:
        raise InvalidRequest(
            f"namespaces of {len(joined)} containers were asked for: {', '.join(sorted(joined))}",
            hint="each container has a user namespace of its own; join only one of them",
        )
    if joined and host.userns_mode in ("host", "keep-id"):
        raise InvalidRequest(
            f"--userns={host.userns_mode} cannot be combined with joining another container's"
            " namespaces",
            hint="the joined container decides which user namespace is used",
        )
    return sharing


def _share(flag: str, mode: str, allowed: tuple[str, ...]) -> NamespaceChoice:
    if mode in ("", "private"):
        return NamespaceChoice()
    if mode in allowed and mode != _CONTAINER:
        return NamespaceChoice(NamespaceMode.HOST) if mode == "host" else NamespaceChoice()
    if _CONTAINER in allowed and mode.startswith(_CONTAINER) and mode != _CONTAINER:
        return NamespaceChoice(NamespaceMode.CONTAINER, mode.removeprefix(_CONTAINER))
    choices = ["private", *(f"{a}NAME" if a == _CONTAINER else a for a in allowed)]
    raise InvalidRequest(
        f"invalid {flag} mode: {mode}", hint=f"--{flag} takes one of {', '.join(choices)}"
    )


def _network(mode: str) -> tuple[NamespaceChoice, str]:
    if mode in ("", "default", "bridge"):
        return NamespaceChoice(), "bridge"
    if mode == "none":
        return NamespaceChoice(), ""
    if mode == "host":
        return NamespaceChoice(NamespaceMode.HOST), ""
    if mode.startswith(_CONTAINER) and mode != _CONTAINER:
        return NamespaceChoice(NamespaceMode.CONTAINER, mode.removeprefix(_CONTAINER)), ""
    if mode == _CONTAINER:
        raise InvalidRequest("invalid network mode: container: is followed by a name or an id")
    return NamespaceChoice(), mode


def namespaces(sharing: NamespaceConfig, joined: dict[str, str]) -> tuple[Namespace, ...]:
    """The spec's list: no entry shares the host's, a path joins, no path makes a new one."""
    shares = {
        "user": sharing.user,
        "pid": sharing.pid,
        "network": sharing.net,
        "ipc": sharing.ipc,
        "uts": sharing.uts,
        "cgroup": sharing.cgroup,
    }
    listed = [Namespace("mount")]
    for kind, share in shares.items():
        if kind in joined:
            listed.append(Namespace(kind, joined[kind]))
        elif share.own:
            listed.append(Namespace(kind))
    return tuple(listed)
