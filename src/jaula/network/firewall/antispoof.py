"""The guard of all ports of an engine's bridges: who is let speak, in the kernel.

Not thread safe: the manager's lock is held by whoever calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jaula.network.firewall import antispoof_rules, bridge_rules
from jaula.network.firewall.nftables import FirewallError, Nft
from jaula.spec.endpoint import Endpoint


class AntiSpoof:
    """One table for every bridge. ``endpoints`` gives those that are on them now.

    ``kept`` is as in :class:`jaula.network.networks.Networks`.

    On a kernel that has no rules for bridges it does nothing, and ``told`` says what that means.
    """

    def __init__(
        self,
        bridge: str,
        nft: Callable[[], Nft],
        endpoints: Callable[[], Iterable[Endpoint]],
        kept: Callable[[], str],
    ) -> None:
        self.told: list[str] = []
        self._bridge = bridge
        self._nft = nft
        self._endpoints = endpoints
        self._kept = kept
        self._loaded = False
        self._works = True

    def ensure(self) -> None:
        """Load the table if that was not done, and it is not one that is kept for now."""
        if not self._loaded:
            self._loaded = True
            if self.is_missing(self._kept()):
                self.load()

    def load(self) -> None:
        """Put the table in place, whole, whatever is there now."""
        if not self._works:
            return
        try:
            self._nft().run(antispoof_rules.ruleset(self._bridge, self._endpoints()))
        except FirewallError as exc:
            self._works = False
            self.told.append(f"containers can use each other's addresses: {exc.message}")
        self._loaded = True

    def admit(self, endpoint: Endpoint) -> bool:
        """Let an endpoint's interface speak with its addresses.

        Answers whether the table had to be loaded again: others may be gone as well.
        """
        return self._change(endpoint, "add")

    def dismiss(self, endpoint: Endpoint) -> bool:
        """Let it speak no longer; the answer is that of :meth:`admit`."""
        return self._change(endpoint, "delete")

    def _change(self, endpoint: Endpoint, verb: str) -> bool:
        """If the table or an element is not there, load what should be, and try again to add."""
        if not self._works:
            return False
        elements = antispoof_rules.endpoint_elements(self._bridge, endpoint, verb=verb)
        try:
            self._nft().run(elements)
        except FirewallError:
            self.load()
            if verb == "add" and self._works:
                self._nft().run(elements)
            return True
        return False

    def is_missing(self, listing: str) -> bool:
        """Whether the table should be there and is not in the output of ``nft list tables``."""
        line = f"table bridge {bridge_rules.table_name(self._bridge)}"
        return self._loaded and self._works and line not in listing.splitlines()

    def remove(self) -> None:
        """Remove the table."""
        if self._works:
            self._nft().run(antispoof_rules.delete(self._bridge))
        self._loaded = False
