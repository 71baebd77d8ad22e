"""The shape of a spare init: the spec of a container with all decisions by default. Pure.

The runtime compares the spec of a start with it (:mod:`jaula.runtime.create.spare_init`). The
engine reserves a spare init for a new container that probably has this shape. A wrong guess costs
no more than that init.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.oci_spec import security_opt, start_spec
from jaula.engine.oci_spec.inputs import HostFacts, SpecInputs
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.runtime_spec import IDMapping, Spec
from jaula.state.container_records import Namespaces, ResolvedRequest, Security, is_external

_BODY = ContainerCreate(cmd=("true",))


def shape(
    container_id: str, cgroup_path: str, host: HostFacts, mappings: tuple[IDMapping, ...]
) -> Spec:
    """Return the spec of a container with the default decisions, this cgroup and these ids."""
    resolved = resolve(_BODY)
    inputs = SpecInputs(container_id, cgroup_path, "", host, mappings=mappings)
    built = start_spec.build(_BODY, resolved, inputs, security_opt.decide(resolved, host))
    assert built.linux is not None
    linux = msgspec.structs.replace(built.linux, seccomp=None)  # it comes with the start
    return msgspec.structs.replace(built, linux=linux, annotations={})


def has_default_shape(
    host: HostConfig, resolved: ResolvedRequest, networks: Collection[str], default: str
) -> bool:
    """Return whether a container probably has this shape; ``default`` is the default network."""
    modes, requested = resolved.namespaces, resolved.security
    return (
        list(networks) == [default]
        and _modes(modes) == _modes(Namespaces())
        and _paths(requested) == _paths(Security())
        and not is_external(host.runtime)
        and not (host.devices or host.device_requests or host.device_cgroup_rules)
        and not (host.cgroup_parent or host.sysctls or host.shm_size)
    )


def _modes(modes: Namespaces) -> object:
    return (modes.user, modes.pid, modes.ipc, modes.uts, modes.cgroup, modes.net, modes.no_shm)


def _paths(requested: Security) -> object:
    options = requested.options
    return (
        requested.privileged,
        requested.masked_paths,
        requested.readonly_paths,
        options.system_paths,
        options.mask,
        options.unmask,
        options.proc,
    )
