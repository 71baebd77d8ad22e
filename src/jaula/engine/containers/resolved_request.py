"""Resolve a create request: make every decision of the request once. Pure.

The result is :class:`~jaula.state.container_records.ResolvedRequest`. ``create`` computes it from a
body that is complete: presets, ``keep-id``, the runtime and the image's configuration are in it.
The policy authorizes the value, the record stores it; start, inspect and update use it. A record of
an engine that stored no such value is resolved when the container store loads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.engine.networks import container_links, port_bindings
from jaula.engine.oci_spec import security_opt, spec_namespaces
from jaula.engine.volumes import mount_spec
from jaula.errors import InvalidRequest
from jaula.state.container_records import ResolvedRequest, VolumesFrom

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.spec.api_documents import ContainerCreate

_VOLUME_MODES = ("", "ro", "rw", "z", "Z")


def resolve(
    body: ContainerCreate,
    container_id: Callable[[str], str] = lambda ref: ref,
    is_engine_socket: Callable[[str], bool] = lambda path: False,
) -> ResolvedRequest:
    """Return the decisions of a request.

    ``container_id`` returns the id of a container for ``--volumes-from``. The modes of namespaces
    name containers by their ids already. ``is_engine_socket`` tells whether a path of the host is
    the engine's own socket: the container gets a socket of its own instead.

    :raises InvalidRequest: when a mode, an option, a mount, a port or a link cannot be parsed, or
        two of them exclude each other.
    """
    host = body.host_config
    return ResolvedRequest(
        namespaces=spec_namespaces.decide(host),
        mounts=mount_spec.mount_requests(body, is_engine_socket),
        volumes_from=tuple(_volumes_from(text, container_id) for text in host.volumes_from),
        security=security_opt.resolve(host),
        ports=port_bindings.port_mappings(body),
        links=tuple(container_links.parse(text) for text in host.links),
    )


def _volumes_from(text: str, container_id: Callable[[str], str]) -> VolumesFrom:
    ref, _, mode = text.partition(":")
    if mode not in _VOLUME_MODES:
        raise InvalidRequest(f"invalid mode for volumes-from: {mode}")
    return VolumesFrom(container_id(ref), mode)
