"""What the containers of one report have in common, read once for all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from jaula.audit.image_policy import ImageRules
from jaula.kernel import mountinfo
from jaula.kernel.mountinfo import MountInfo
from jaula.network.firewall import antispoof, bridge_rules, nftables
from jaula.network.firewall.bridge_rules import Limits
from jaula.network.firewall.nftables import FirewallError
from jaula.security.seccomp import seccomp
from jaula.spec.runtime import Seccomp

Rules = dict[tuple[str, str], list[Any]]
"""Chains and rules of a table by (family, table), as nft prints them, without handles."""


class HostSnapshot:
    """The host as it was when a thing was first asked for; readings raise ``OSError``."""

    def __init__(self, proc_root: str = "/proc") -> None:
        self.proc_root = proc_root
        self._programs: dict[Seccomp, bytes] = {}
        self._expected: dict[tuple[object, ...], Rules] = {}
        self.networks: Sequence[Mapping[str, Any]] = ()  # what was asked of the engine's networks
        self.image_rules: ImageRules | None = None
        self.traced = True  # whether a container's first process may be stopped for a moment

    @cached_property
    def mounts(self) -> tuple[MountInfo, ...]:
        """The mount table of whoever verifies, to find cgroup trees."""
        with open(f"{self.proc_root}/self/mountinfo", encoding="utf-8", errors="replace") as file:
            return mountinfo.parse(file.read())

    @cached_property
    def processes(self) -> dict[int, tuple[str, str, str]]:
        """Every process with its mount, process and user namespace; those that end are left out."""
        found = {}
        for name in os.listdir(self.proc_root):
            if name.isascii() and name.isdigit():
                place = f"{self.proc_root}/{name}/ns"
                try:
                    mnt, pid, user = (os.readlink(f"{place}/{k}") for k in ("mnt", "pid", "user"))
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue  # ended, or not to be read by this user
                found[int(name)] = (mnt, pid, user)
        return found

    def program(self, profile: Seccomp) -> bytes:
        """The filter that a spec's profile compiles to here. Raises ``InvalidRequest``."""
        if profile not in self._programs:
            self._programs[profile] = seccomp.build(profile)
        return self._programs[profile]

    @cached_property
    def packet_filter(self) -> list[dict[str, Any]]:
        """Every object of the kernel's packet filter, as ``nft -j list ruleset`` tells them."""
        return listing()

    def network(self, name: str, identity: str) -> Mapping[str, Any]:
        """The document of a network; empty where it was not given, which means the defaults."""
        for document in self.networks:
            if document.get("Id") == identity or document.get("Name") == name:
                return document
        return {}

    def expected(
        self,
        bridge: str,
        subnet: IPv4Network,
        subnet6: IPv6Network | None,
        limits: Limits,
        guard: str,
    ) -> Rules:
        """The rules that an engine makes for a bridge, as this kernel prints them.

        ``guard`` is the bridge that the rules of all bridges' ports are named after.

        They are loaded in a network namespace that ends at once, so that what is compared has been
        through the same kernel and the same nft.
        """
        key = (bridge, subnet, subnet6, limits, guard)
        if key not in self._expected:
            text = bridge_rules.ruleset(bridge, subnet, (), limits)
            if subnet6 is not None:
                text += bridge_rules.ruleset6(bridge, subnet6, limits)
            text += antispoof.ruleset(guard, ())
            self._expected[key] = rules(listing_of(text))
        return self._expected[key]


def listing() -> list[dict[str, Any]]:
    """Every object of the packet filter of this network namespace. Raises ``OSError``."""
    nft = nftables.open_nft()
    try:
        return _objects(nft.run("list ruleset", json=True))
    except FirewallError as error:
        raise PermissionError(1, str(error)) from None
    finally:
        nft.close()


def listing_of(text: str) -> list[dict[str, Any]]:
    """What the kernel makes of nft commands, in a namespace of their own."""
    from jaula.audit.kernel.probes import told_by_child
    from jaula.kernel.namespaces import CLONE, unshare

    def act() -> str:
        unshare(CLONE.NEWNET)
        nft = nftables.open_nft()
        nft.run(text)
        return nft.run("list ruleset", json=True)

    return _objects(told_by_child(act))


def _objects(text: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(text)["nftables"]
    except (ValueError, KeyError):
        raise OSError(os.EX_PROTOCOL, f"nft answered {text[:120]!r}") from None
    return found


def rules(objects: list[dict[str, Any]]) -> Rules:
    """The chains and rules by table, in order, without what differs from load to load."""
    found: Rules = {}
    for entry in objects:
        for kind in ("chain", "rule"):
            if kind in entry:
                body = {k: v for k, v in entry[kind].items() if k not in ("handle", "index")}
                found.setdefault((body["family"], body["table"]), []).append([kind, body])
    return found
