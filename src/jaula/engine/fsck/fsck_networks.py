"""Networks: records without a bridge on the host, ports of bridges without a container."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from jaula.engine.fsck.problem import FsckInputs, Problem


def check(inputs: FsckInputs) -> Iterator[Problem]:
    """Yield the networks whose bridge is missing, and the ports that belong to no container."""
    network = inputs.services.network_manager
    expected = {each.name: each.bridge for each in inputs.services.network_store if each.bridge}
    expected["bridge"] = inputs.services.config.bridge
    for name, link in expected.items():
        if not network.has_interface(link):
            advice = "restart the engine, which creates it and connects running containers"
            yield Problem("network", name, f"its bridge {link} is missing", advice)
    if _has_shared_namespace(inputs):
        return
    for name, port in inputs.strays(network.orphaned_ports):
        repair = partial(network.delete_orphaned_port, name, port)
        problem = f"no container of the network {name} has this port"
        yield Problem("network", port, problem, "it is removed", repair)


def _has_shared_namespace(inputs: FsckInputs) -> bool:
    """Return whether a container runs in the network namespace of one that has exited.

    The kernel keeps the port of such a namespace, although its address is released.
    """
    store = inputs.services.container_store
    owners = (
        store.get(record.resolved.namespaces.net.container)
        for record in inputs.records
        if record.id in inputs.alive and record.resolved.namespaces.net.container
    )
    return any(owner is None or not owner.live for owner in owners)
