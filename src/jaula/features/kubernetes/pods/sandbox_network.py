"""The network of pods: CNI plugins that attach and detach the network namespace of a sandbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.errors import JaulaError, Unavailable
from jaula.features.kubernetes.cni.cni_cache import ResultCache
from jaula.features.kubernetes.cni.conf_monitor import ConfMonitor, NetworkState
from jaula.features.kubernetes.cni.network_list import Attachment, NetworkList
from jaula.features.kubernetes.cni.plugin import PluginExec
from jaula.features.kubernetes.cni.runtime_config import CapabilityArgs, DNSConfig, PortMapping
from jaula.spec.pod import PodAttachment, PodInterface

if TYPE_CHECKING:
    from jaula.config import EngineConfig
    from jaula.engine.model.container import Container
    from jaula.features.kubernetes.cni.cni_config import NetworkConfig
    from jaula.features.kubernetes.cni.cni_result import Result
    from jaula.spec.pod import PodSandboxRequest

_IFNAME = "eth0"
_log = logging.getLogger("jaula.pods")


class PodNetwork:
    """The network configuration of this node, and its attachments."""

    def __init__(self, config: EngineConfig, host_mounts: int) -> None:
        """``host_mounts`` is a descriptor of the host's mount namespace, -1 if it is the own."""
        self._cache = ResultCache(Path(config.paths.root) / "cni")
        plugins = PluginExec(config.cni_bin_dirs, host_mounts=host_mounts)
        self._networks = NetworkList(plugins, self._cache)
        self._monitor = ConfMonitor(self._networks.negotiate, config.cni_conf_dir)

    async def open(self) -> None:
        """Read the configuration and follow its changes.

        :raises Unavailable: when the results of the plugins cannot be stored.
        """
        await asyncio.to_thread(self._cache.prepare)
        await self._monitor.start()

    async def close(self) -> None:
        """Stop to follow changes. Pods stay attached."""
        await self._monitor.close()

    async def collect(self, attached: Callable[[], Collection[str]]) -> None:
        """Remove attachments of sandboxes that do not exist; log what fails.

        ``attached`` returns the ids of those that do.
        """
        if self.state.config is None:
            return
        try:
            await self._networks.gc(
                self.state.config, lambda: [(sandbox, _IFNAME) for sandbox in attached()]
            )
        except JaulaError as error:
            _log.warning("%s", error)

    @property
    def state(self) -> NetworkState:
        """Return the condition NetworkReady."""
        return self._monitor.state

    def check(self) -> None:
        """Check that a pod can be attached.

        :raises Unavailable: when there is no configuration.
        """
        if self.state.config is None:
            raise Unavailable(
                f"no network for pods: {self.state.message}",
                hint="install CNI plugins and a configuration, or run the pod with hostNetwork",
            )

    async def attach(
        self,
        sandbox: Container,
        request: PodSandboxRequest,
        namespace: str = "",
        requested: tuple[str, ...] = (),
    ) -> tuple[tuple[str, ...], PodAttachment]:
        """Attach a sandbox; return its addresses, the first one is the pod's, and the rest.

        ``namespace`` is the path of its network namespace, '' if it runs. ``requested`` are
        addresses that the plugins are asked for, of which not every plugin knows.

        :raises Unavailable: when there is no configuration.
        :raises JaulaError: when a plugin fails. What it had added is removed.
        """
        self.check()
        assert self.state.config is not None
        attachment = Attachment(
            container_id=sandbox.id,
            netns=namespace or _namespace(sandbox),
            ifname=_IFNAME,
            args=_arguments(sandbox.id, request),
            capability_args=_capability_args(request),
        )
        config = with_addresses(self.state.config, requested)
        result = await self._networks.add(config, attachment)
        addresses = tuple(address.partition("/")[0] for address in result.addresses(_IFNAME))
        return addresses, attachment_of(result, _IFNAME)

    async def detach(self, sandbox: Container) -> None:
        """Remove what the plugins have added. Nothing happens if they added nothing.

        :raises JaulaError: when a plugin fails; another call tries again.
        """
        await self._networks.delete(
            sandbox.id, _IFNAME, namespace=_namespace(sandbox) if sandbox.live else ""
        )


def _namespace(sandbox: Container) -> str:
    return f"/proc/{sandbox.record.pid}/ns/net"


def attachment_of(result: Result, ifname: str) -> PodAttachment:
    """Return what a result says about the pod. Pure.

    An address that names no interface is the pod's, and so is ``ifname`` in a result without
    interfaces.
    """
    inside = [bool(interface.sandbox) for interface in result.interfaces]
    own = [ip for ip in result.ips if ip.interface is None or inside[ip.interface]]
    gateways = (*(ip.gateway for ip in own), *(route.gw for route in result.routes))
    return PodAttachment(
        interfaces=tuple(
            PodInterface(interface.name, interface.mac.lower())
            for interface in result.interfaces
            if interface.sandbox
        )
        or (PodInterface(ifname),),
        host_interfaces=tuple(i.name for i in result.interfaces if not i.sandbox),
        addresses=tuple(ip.address for ip in own),
        gateways=tuple(dict.fromkeys(filter(None, gateways))),
        destinations=tuple(dict.fromkeys(route.dst for route in result.routes)),
    )


def with_addresses(network: NetworkConfig, addresses: tuple[str, ...]) -> NetworkConfig:
    """Return a network that asks for addresses. Pure.

    Source: CONVENTIONS.md of the CNI specification, ``ips`` of ``args.cni``, which the plugins
    ``host-local`` and ``static`` read.
    """
    if not addresses:
        return network
    plugins = []
    for plugin in network.plugins:
        args = msgspec.json.decode(plugin.members.get("args", b"{}"), type=dict[str, Any])
        conventional = args.get("cni")
        known = conventional if isinstance(conventional, dict) else {}
        args["cni"] = known | {"ips": list(addresses)}
        members = plugin.members | {"args": msgspec.Raw(msgspec.json.encode(args))}
        plugins.append(msgspec.structs.replace(plugin, members=members))
    return msgspec.structs.replace(network, plugins=tuple(plugins))


def _arguments(sandbox_id: str, request: PodSandboxRequest) -> tuple[tuple[str, str], ...]:
    """Return CNI_ARGS as every runtime of Kubernetes gives them. Pure."""
    metadata = request.metadata
    return (
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", metadata.namespace),
        ("K8S_POD_NAME", metadata.name),
        ("K8S_POD_INFRA_CONTAINER_ID", sandbox_id),
        ("K8S_POD_UID", metadata.uid),
    )


def _capability_args(request: PodSandboxRequest) -> CapabilityArgs:
    """Return the values that plugins may ask for. Pure."""
    host = request.body.host_config
    dns = None
    if host.dns or host.dns_search or host.dns_options:
        dns = DNSConfig(servers=host.dns, searches=host.dns_search, options=host.dns_options)
    return CapabilityArgs(
        port_mappings=tuple(
            PortMapping(
                host_port=port.host_port,
                container_port=port.container_port,
                protocol=port.protocol,
                host_ip=port.host_ip,
            )
            for port in request.ports
        ),
        dns=dns,
    )
