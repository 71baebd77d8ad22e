"""State of the host that the containers of one report share, read once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jaula import feature
from jaula.features.verify.model import seals
from jaula.features.verify.model.host_process import KINDS, HostProcess, read_process
from jaula.features.verify.model.image_layout import ImageLayout
from jaula.features.verify.model.network_view import read_new_settings
from jaula.features.verify.model.seals import Seals
from jaula.kernel import mountinfo
from jaula.kernel.child_process import run_in_child
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.namespace_threads import in_unshared_thread
from jaula.kernel.rtnetlink import Link, Rtnetlink
from jaula.network.firewall import antispoof, bridge_rules, nft_command
from jaula.network.firewall.bridge_rules import Limits
from jaula.network.firewall.nft_command import FirewallError
from jaula.security.seccomp import seccomp_filter
from jaula.spec.runtime_spec import Seccomp

if TYPE_CHECKING:
    from jaula.images.store.image_store import ImageStore
    from jaula.images.store.verify_images import Verification, VerifiedImage
    from jaula.security import cdi

Derived = TypeVar("Derived")

Rules = dict[tuple[str, str], list[Any]]
"""Chains and rules of a table by (family, table), as nft prints them, without handles."""


Service = TypeVar("Service")


class HostSnapshot:
    """The host at the first access of each property; methods that read it raise ``OSError``."""

    def __init__(self, proc_root: str = "/proc") -> None:
        self.proc_root = proc_root
        self._programs: dict[Seccomp, bytes] = {}
        self._derived: dict[str, Any] = {}
        self._seals: dict[str, Seals] = {}
        self._layouts: dict[str, ImageLayout] = {}
        self._image_stores: dict[str, tuple[ImageStore, Verification]] = {}
        self._expected: dict[tuple[object, ...], Rules] = {}
        self.networks: Sequence[Mapping[str, Any]] = ()  # the engine's network documents
        self.cdi_directories: Sequence[str] = ()  # of the engine
        self.image_policy: Mapping[str, Any] | None = None  # the engine's document of it
        self._of_features = feature.ServiceCache()
        self.trace_processes = True  # whether an init process may be stopped briefly
        self.contents = False  # whether the files of layers are compared with their blobs

    def renewed(self) -> HostSnapshot:
        """Return a snapshot that reads the host again; what was compiled for it is kept."""
        renewed = HostSnapshot(self.proc_root)
        renewed._programs, renewed._expected = self._programs, self._expected
        renewed.networks, renewed.image_policy = self.networks, self.image_policy
        renewed._of_features = self._of_features
        renewed.cdi_directories = self.cdi_directories
        renewed.trace_processes, renewed.contents = self.trace_processes, self.contents
        return renewed

    def service(self, make: Callable[[HostSnapshot], Service]) -> Service:
        """Return what a feature has read for its checks, by the function that reads it.

        It is kept when the host is read again.
        """
        return self._of_features.service(self, make)

    @cached_property
    def mounts(self) -> tuple[MountInfo, ...]:
        """The mount table of the verifying process, for cgroup hierarchies."""
        return mountinfo.read(f"{self.proc_root}/self/mountinfo", errors="replace")

    @cached_property
    def processes(self) -> dict[int, HostProcess]:
        """Every process that this user may read."""
        pids = [
            int(name) for name in os.listdir(self.proc_root) if name.isascii() and name.isdigit()
        ]
        found = (read_process(self.proc_root, pid) for pid in pids)
        return {process.pid: process for process in found if process is not None}

    @cached_property
    def cdi_devices(self) -> cdi.Devices:
        """The devices that CDI files of the host define."""
        from jaula.security import cdi

        return cdi.read(self.cdi_directories)

    @cached_property
    def by_cgroup(self) -> dict[tuple[str, str], list[HostProcess]]:
        """The processes in each cgroup and below it, by (controllers, path)."""
        index: dict[tuple[str, str], list[HostProcess]] = {}
        for process in self.processes.values():
            for names, path in process.cgroups:
                while path not in ("", "/"):
                    index.setdefault((names, path), []).append(process)
                    path = path.rpartition("/")[0]
        return index

    @cached_property
    def by_namespace(self) -> dict[str, list[HostProcess]]:
        """The processes in each namespace, by its link."""
        index: dict[str, list[HostProcess]] = {}
        for process in self.processes.values():
            for link in process.namespaces.values():
                index.setdefault(link, []).append(process)
        return index

    @cached_property
    def reader_namespaces(self) -> dict[str, str]:
        """The namespaces of the verifying process, by entry of /proc/<pid>/ns."""
        return {kind: os.readlink(f"{self.proc_root}/self/ns/{kind}") for kind in KINDS}

    def seals(self, root: str) -> Seals:
        """Return the seals in the audit log of the engine with this data directory."""
        if root not in self._seals:
            self._seals[root] = seals.read(Path(root, "audit"))
        return self._seals[root]

    def image_layout(self, root: str) -> ImageLayout:
        """Return the images of the engine with this data directory."""
        if root not in self._layouts:
            self._layouts[root] = ImageLayout(Path(root, "images"))
        return self._layouts[root]

    def verified_image(self, root: str, id: str) -> VerifiedImage:
        """Return the problems of an image's blobs and layers, each of which is read once.

        :raises NotFound: when the engine with this data directory has no such image.
        :raises CorruptState: when its manifest or configuration cannot be read.
        """
        from jaula.config import Paths
        from jaula.images.store.image_store import ImageStore
        from jaula.images.store.verify_images import Verification
        from jaula.storage.layers.layer_store import LayerStore

        if root not in self._image_stores:
            paths = Paths(Path(root))
            store = ImageStore(paths, LayerStore(paths))
            self._image_stores[root] = (store, Verification(store))
        store, verification = self._image_stores[root]
        return verification.run(store.resolve(id))

    def program(self, profile: Seccomp) -> bytes:
        """Return the filter that a spec's profile compiles to on this host.

        :raises InvalidRequest: when the profile is not valid.
        """
        if profile not in self._programs:
            self._programs[profile] = seccomp_filter.build(profile)
        return self._programs[profile]

    @cached_property
    def packet_filter(self) -> list[dict[str, Any]]:
        """Every object of the packet filter, as ``nft -j list ruleset`` prints them."""
        return listing()

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """The links of the reader's network namespace."""
        with Rtnetlink() as netlink:
            return tuple(netlink.links())

    @cached_property
    def new_settings(self) -> Mapping[str, str]:
        """The writable sysctls of new network and ipc namespaces, by path below /proc/sys."""
        return in_unshared_thread(read_new_settings)

    def derived(self, name: str, derive: Callable[[list[dict[str, Any]]], Derived]) -> Derived:
        """Return what a function derives from the packet filter, computed once by name."""
        if name not in self._derived:
            self._derived[name] = derive(self.packet_filter)
        result: Derived = self._derived[name]
        return result

    def network(self, name: str, identity: str) -> Mapping[str, Any]:
        """Return the document of a network, or an empty one for a network with default settings."""
        for document in self.networks:
            if document.get("Id") == identity or document.get("Name") == name:
                return document
        return {}

    def expected(
        self,
        bridge: str,
        subnet: IPv4Network | None,
        subnet6: IPv6Network | None,
        limits: Limits,
        guard: str,
    ) -> Rules:
        """Return the rules that an engine loads for a bridge, as this kernel prints them.

        ``guard`` is the bridge that the table of the anti-spoofing rules is named after.

        The rules are loaded into a temporary network namespace, so that both sides of the
        comparison have passed through the same kernel and nft.
        """
        key = (bridge, subnet, subnet6, limits, guard)
        if key not in self._expected:
            texts = []
            for possible in bridge_rules.within_kernel(limits):
                text = bridge_rules.ruleset(bridge, subnet, (), possible)
                if subnet6 is not None:
                    text += bridge_rules.ruleset6(bridge, subnet6, possible)
                texts.append(text + antispoof.ruleset(guard, ()))
            self._expected[key] = rules(listing_of(*texts))
        return self._expected[key]


def listing() -> list[dict[str, Any]]:
    """Return every object of the packet filter of this network namespace.

    :raises OSError: when nft fails.
    """
    nft = nft_command.open_nft()
    try:
        return _objects(nft.run("list ruleset", json=True))
    except FirewallError as error:
        raise PermissionError(1, str(error)) from None
    finally:
        nft.close()


def listing_of(*texts: str) -> list[dict[str, Any]]:
    """Return the kernel's listing of the first nft commands of ``texts`` that it accepts.

    They are loaded in a temporary network namespace.

    :raises OSError: when the kernel accepts none of them.
    """
    from jaula.kernel.namespaces import CLONE, unshare

    def act() -> str:
        unshare(CLONE.NEWNET)
        nft = nft_command.open_nft()
        for number, text in enumerate(texts, 1):
            try:
                nft.run(text)
                break
            except FirewallError:
                if number == len(texts):
                    raise
        return nft.run("list ruleset", json=True)

    return _objects(run_in_child(act))


def _objects(text: str) -> list[dict[str, Any]]:
    try:
        objects: list[dict[str, Any]] = json.loads(text)["nftables"]
    except (ValueError, KeyError):
        raise OSError(os.EX_PROTOCOL, f"nft answered {text[:120]!r}") from None
    return objects


def rules(objects: list[dict[str, Any]]) -> Rules:
    """Return chains and rules by table, in order, without values that differ between loads."""
    tables: Rules = {}
    for entry in objects:
        for kind in ("chain", "rule"):
            if kind in entry:
                body = {k: v for k, v in entry[kind].items() if k not in ("handle", "index")}
                tables.setdefault((body["family"], body["table"]), []).append([kind, body])
    return tables
