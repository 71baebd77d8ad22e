"""The pods of an engine, and the hooks that open and close them.

Every engine imports this module, so it imports the service itself at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaula.engine.engine import Engine
    from jaula.features.kubernetes.pods.pods import Pods


def pods(engine: Engine) -> Pods:
    """Return the pods of an engine."""
    from jaula.features.kubernetes.pods.pods import Pods

    return Pods(engine.services, engine.containers, engine.execs)


async def open_network(engine: Engine) -> None:
    """Use the network configuration of this node in an engine that serves CRI.

    :raises Unavailable: when the results of the plugins cannot be stored.
    """
    from jaula.features.kubernetes.pods.sandbox_network import PodNetwork

    services = engine.services
    network = PodNetwork(services.config, services.runtime.host_mounts)
    await engine.service(pods).open_network(network)


async def close(engine: Engine) -> None:
    """Stop to follow the network configuration. Pods stay as they are."""
    if (found := engine.existing(pods)) is not None:
        await found.close()
