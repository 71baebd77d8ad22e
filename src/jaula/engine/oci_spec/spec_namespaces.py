"""Namespaces of a container: its own, the host's, or another container's. Pure.

Source: Docker's ``--userns --pid --ipc --uts --cgroupns --network``.

Facts about joining: a process may only use a namespace in which it has capabilities, and those come
from the user namespace that owns it. So a container that joins a namespace of another container
also joins that one's user namespace; two different ones cannot be joined at a time. Containers in
one user namespace can give a namespace each: the request names the user namespace then, and the
start checks that they share it. The initial user namespace owns the host's namespaces, and those of
a container with ``--userns=host``. From its own user namespace a container can see such a namespace
but not change it, so sharing it is safe. With ``--userns=host`` it can change every namespace that
it joins.
"""

from __future__ import annotations

from jaula.errors import InvalidRequest
from jaula.spec.api_documents import HostConfig
from jaula.spec.runtime_spec import Namespace
from jaula.state.container_records import PRIVATE, NamespaceKind, NamespaceMode, Namespaces

_CONTAINER = "container:"


def decide(host: HostConfig) -> Namespaces:
    """Parse the namespace modes of a request.

    :raises InvalidRequest: when a mode or a network does not exist, or modes exclude each other.
    """
    net, network = _network(host.network_mode)
    decided = Namespaces(
        user=_share("userns", host.userns_mode, ("host", "auto", "keep-id", _CONTAINER)),
        pid=_share("pid", host.pid_mode, ("host", _CONTAINER)),
        ipc=_share("ipc", host.ipc_mode, ("host", _CONTAINER, "shareable", "none")),
        uts=_share("uts", host.uts_mode, ("host", _CONTAINER)),
        cgroup=_share("cgroupns", host.cgroupns_mode, ("host",)),
        net=net,
        network=network,
        shareable_ipc=host.ipc_mode == "shareable",
        no_shm=host.ipc_mode == "none",
        keep_id=host.userns_mode == "keep-id",
    )
    joined = set(decided.containers().values())
    if len(joined) > 1 and decided.user.private:
        raise InvalidRequest(
            f"namespaces of {len(joined)} containers were requested: {', '.join(sorted(joined))}",
            hint="each container has a user namespace of its own; join only one of them, or name"
            " the user namespace that they share with --userns=container:NAME",
        )
    if joined and host.userns_mode == "keep-id":
        raise InvalidRequest(
            "--userns=keep-id cannot be combined with joining another container's namespaces",
            hint="the joined container decides which user namespace is used",
        )
    return decided


def _share(flag: str, mode: str, allowed: tuple[str, ...]) -> NamespaceMode:
    if mode in ("", "private"):
        return PRIVATE
    if mode in allowed and mode != _CONTAINER:
        return NamespaceMode(NamespaceKind.HOST) if mode == "host" else PRIVATE
    if _CONTAINER in allowed and mode.startswith(_CONTAINER) and mode != _CONTAINER:
        return NamespaceMode(NamespaceKind.CONTAINER, mode.removeprefix(_CONTAINER))
    choices = ["private", *(f"{a}NAME" if a == _CONTAINER else a for a in allowed)]
    raise InvalidRequest(
        f"invalid {flag} mode: {mode}", hint=f"--{flag} must be one of {', '.join(choices)}"
    )


def _network(mode: str) -> tuple[NamespaceMode, str]:
    if mode in ("", "default", "bridge"):
        return PRIVATE, "bridge"
    if mode == "none":
        return PRIVATE, ""
    if mode == "host":
        return NamespaceMode(NamespaceKind.HOST), ""
    if mode.startswith(_CONTAINER) and mode != _CONTAINER:
        return NamespaceMode(NamespaceKind.CONTAINER, mode.removeprefix(_CONTAINER)), ""
    if mode == _CONTAINER:
        raise InvalidRequest("Invalid network mode: invalid container format container:<name|id>")
    return PRIVATE, mode


def namespaces(
    modes: Namespaces, joined: dict[str, str], *, time: bool = False
) -> tuple[Namespace, ...]:
    """Return the spec's list of namespaces.

    Without an entry the host's is shared; an entry with a path joins, one without creates. ``time``
    adds a time namespace, whose clocks are the host's.
    """
    kinds = {
        "user": modes.user,
        "pid": modes.pid,
        "network": modes.net,
        "ipc": modes.ipc,
        "uts": modes.uts,
        "cgroup": modes.cgroup,
    }
    listed = [Namespace("mount")]
    for kind, mode in kinds.items():
        if kind in joined:
            listed.append(Namespace(kind, joined[kind]))
        elif mode.private:
            listed.append(Namespace(kind))
    if time:
        listed.append(Namespace("time"))
    return tuple(listed)
