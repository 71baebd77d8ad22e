"""Networks: on record, and missing on the host."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.engine.fsck.finding import Finding, FsckInputs


def check(facts: FsckInputs) -> Iterator[Finding]:
    """See whether the host has the link of every network."""
    network = facts.parts.network
    expected = {each.name: each.bridge for each in facts.parts.networks if each.bridge}
    expected["bridge"] = facts.parts.config.bridge
    for name, link in expected.items():
        if not network.has_interface(link):
            advice = "restart the engine, which makes it and connects what runs"
            yield Finding("network", name, f"its bridge {link} is not there", advice)
