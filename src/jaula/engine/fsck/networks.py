"""Networks: records without a bridge on the host."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.engine.fsck.finding import Finding, FsckInputs


def check(inputs: FsckInputs) -> Iterator[Finding]:
    """Yield the networks whose bridge is missing on the host."""
    network = inputs.services.network_manager
    expected = {each.name: each.bridge for each in inputs.services.network_store if each.bridge}
    expected["bridge"] = inputs.services.config.bridge
    for name, link in expected.items():
        if not network.has_interface(link):
            advice = "restart the engine, which creates it and connects running containers"
            yield Finding("network", name, f"its bridge {link} is missing", advice)
