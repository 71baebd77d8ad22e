"""The engine as a whole: identity, ``info``, ``version``, disk usage, events."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from jaula import __version__
from jaula.engine.oci_spec import host_facts
from jaula.errors import JaulaError
from jaula.logs import timestamp
from jaula.security.landlock_ruleset import Landlock
from jaula.security.lsm import detect
from jaula.security.lsm.apparmor_choice import AppArmor
from jaula.security.lsm.selinux_choice import SELinux
from jaula.spec import log_drivers
from jaula.state.container_records import EngineIdentity, Status
from jaula.state.database import Database

if TYPE_CHECKING:
    from jaula.config import RegistryConfig
    from jaula.engine.model.services import Services
    from jaula.engine.system.disk_usage import DiskUsage, Storage
    from jaula.engine.system.host_objects import HostObjects
    from jaula.images.store.image_names import NameRights

API_VERSION = "1.55"
MINIMUM_API_VERSION = "1.24"
_KEEPS_INDEXES = ("driver-type", "io.containerd.snapshotter.v1")
"""The row of DriverStatus by which clients know a store that keeps images of several platforms."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}

_REPEATED = (
    *("ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch", "KernelVersion"),
    "BuildTime",
)
"""Members of the version details that the document also has at its top."""


class System:
    """Information about the engine and its host."""

    def __init__(
        self, services: Services, disk_usage: Callable[[], DiskUsage], objects: HostObjects
    ) -> None:
        self._services = services
        self._objects = objects
        self._disk_usage = disk_usage

    async def ping(self) -> None:
        """Return when the event loop runs."""

    def version(self) -> dict[str, Any]:
        """Return Docker's version document."""
        machine = os.uname().machine
        architecture = _ARCHITECTURES.get(machine, machine)
        details = {
            "ApiVersion": API_VERSION,
            "Arch": architecture,
            "KernelVersion": self._services.host.kernel,
            "MinAPIVersion": MINIMUM_API_VERSION,
            "Os": "linux",
            "Experimental": "false",
            "GitCommit": "",
            "GoVersion": f"python{'.'.join(map(str, sys.version_info[:3]))}",
            "BuildTime": "",
        }
        return {
            "Platform": {"Name": "jaula"},
            "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
            "Version": __version__,
            **{key: details[key] for key in _REPEATED},
        }

    async def info(self) -> dict[str, Any]:
        """Return Docker's info document."""
        services, host = self._services, self._services.host
        records = [c.record for c in services.container_store if not c.record.in_pod]
        states = Counter(record.status for record in records)
        features = services.cgroups.features()
        return {
            "ID": services.identity,
            "Containers": len(records),
            "ContainersRunning": states[Status.RUNNING] + states[Status.RESTARTING],
            "ContainersPaused": states[Status.PAUSED],
            "ContainersStopped": states[Status.EXITED]
            + states[Status.CREATED]
            + states[Status.DEAD],
            "Images": len(services.images.list()),
            "Driver": services.snapshots.name,
            "DriverStatus": [list(row) for row in (*services.snapshots.status(), _KEEPS_INDEXES)],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": list(log_drivers.NAMES),
            },
            "MemoryLimit": "memory" in features,
            "SwapLimit": "swap" in features,
            "CpuCfsPeriod": "cpu.quota" in features,
            "CpuCfsQuota": "cpu.quota" in features,
            "CPUShares": "cpu.shares" in features,
            "CPUSet": "cpuset" in features,
            "PidsLimit": "pids" in features,
            "OomKillDisable": "oom.control" in features,
            "IPv4Forwarding": _is_enabled("/proc/sys/net/ipv4/ip_forward"),
            "BridgeNfIptables": _is_enabled("/proc/sys/net/bridge/bridge-nf-call-iptables"),
            "BridgeNfIp6tables": _is_enabled("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
            "FirewallBackend": {"Driver": "nftables"},
            "Debug": services.config.debug,
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": len(asyncio.all_tasks()),
            "SystemTime": timestamp.format_time(time.time_ns()),
            "LoggingDriver": services.config.log_driver,
            "CgroupDriver": services.cgroups.name,
            "CgroupVersion": str(services.cgroups.version),
            "NEventsListener": services.events.listeners,
            "KernelVersion": host.kernel,
            "OperatingSystem": host_facts.operating_system(),
            "OSVersion": "",
            "OSType": "linux",
            "Architecture": os.uname().machine,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": _registries(services.config.registry),
            "CDISpecDirs": list(services.config.cdi_spec_dirs),
            "DiscoveredDevices": await asyncio.to_thread(
                _discovered_devices, services.config.cdi_spec_dirs
            ),
            "KernelMemoryTCP": False,
            "NCPU": len(host.online_cpus),
            "MemTotal": host.total_memory,
            "GenericResources": None,
            "DockerRootDir": str(services.config.paths.root),
            "HttpProxy": _without_password(services.config.registry.http_proxy),
            "HttpsProxy": _without_password(services.config.registry.https_proxy),
            "NoProxy": services.config.registry.no_proxy,
            "Name": host.hostname,
            "Labels": [],
            "ExperimentalBuild": False,
            "ServerVersion": __version__,
            "Runtimes": services.runtime_table.document(),
            "DefaultRuntime": services.config.default_runtime,
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "docker-init",
            "ContainerdCommit": {"ID": "", "Expected": ""},
            "RuncCommit": {"ID": "", "Expected": ""},
            "InitCommit": {"ID": "", "Expected": ""},
            "SecurityOptions": self._security_options(),
            "Warnings": self._warnings(),
        }

    def _security_options(self) -> list[str]:
        host = self._services.host
        options = ["name=seccomp,profile=builtin", "name=userns", "name=cgroupns"]
        if host.rootless:
            options.append("name=rootless")
        for mandatory in (
            SELinux(active=host.selinux),
            AppArmor(
                active=host.apparmor,
                loaded=detect.apparmor_profiles(),
                default=host.apparmor_default,
            ),
        ):
            if mandatory.enabled():
                options.append(mandatory.security_option())
        if (module := Landlock(host.landlock)).enabled():
            options.append(module.security_option())
        return options

    def _warnings(self) -> list[str]:
        warnings = list(self._services.cgroups.warnings())
        warnings += [f"WARNING: {line}" for line in self._services.host.warnings]
        try:
            warnings += [f"WARNING: {line}" for line in self._services.network_manager.warnings()]
        except JaulaError as error:
            warnings.append(f"WARNING: the default network does not work: {error}")
        warnings += [f"WARNING: {line}" for line in self._objects.warnings]
        for manifest, reason in self._services.images.damaged().items():
            warnings.append(f"WARNING: image {manifest} is damaged: {reason}")
        return warnings

    async def df(self, rights: NameRights | None = None) -> dict[str, Any]:
        """Return Docker's disk usage document, with ``rights`` for the build cache of a caller."""
        return await asyncio.to_thread(self._disk_usage().document, rights)

    async def storage(self) -> Storage:
        """Return what images and the writable layers of containers use."""
        return await asyncio.to_thread(self._disk_usage().storage)

    def events(
        self, since: float | None, until: float | None, filters: dict[str, list[str]]
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield past and new events; see :class:`jaula.engine.model.event_log.EventBus`."""
        return self._services.events.stream(since, until, filters)


def _discovered_devices(directories: Sequence[str]) -> list[dict[str, str]]:
    """Return the devices that CDI files define; the reader is loaded if there is a directory."""
    if not any(os.path.isdir(directory) for directory in directories):
        return []
    from jaula.security import cdi

    return [{"Source": cdi.DRIVER, "ID": name} for name in cdi.read(directories).names]


def _registries(config: RegistryConfig) -> dict[str, Any]:
    """Return Docker's document of the registry settings."""
    networks = [entry for entry in config.insecure if "/" in entry]
    names = [entry for entry in config.insecure if "/" not in entry]
    indexes = {
        name: {"Name": name, "Mirrors": [], "Secure": name not in names, "Official": official}
        for name, official in [("docker.io", True), *((name, False) for name in names)]
    }
    indexes["docker.io"]["Mirrors"] = list(config.mirrors)
    return {
        "AllowNondistributableArtifactsCIDRs": [],
        "AllowNondistributableArtifactsHostnames": [],
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *networks],
        "IndexConfigs": indexes,
        "Mirrors": list(config.mirrors),
    }


def _without_password(proxy: str) -> str:
    """Return the URL of a proxy without its user and password."""
    scheme, separator, rest = proxy.rpartition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}{separator}xxxxx:xxxxx@{host}" if at else proxy


def _is_enabled(path: str) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip() == "1"
    except FileNotFoundError:
        return False


# -- identity ------------------------------------------------------------------------------------


_IDENTITY_KEY = "identity"


def engine_id(database: Database) -> str:
    """Return the engine's random id, which is created with the database and lives as long as it."""
    stored = database.get("settings", _IDENTITY_KEY, EngineIdentity)
    if stored is None:
        import uuid

        stored = EngineIdentity(str(uuid.uuid4()))
        database.put("settings", _IDENTITY_KEY, stored)
    return stored.id
