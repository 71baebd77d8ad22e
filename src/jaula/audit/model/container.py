"""The container under proof: what was requested, and its first process as the kernel shows it.

What was requested comes from two documents. Of the engine's inspect document these keys are used,
and no others: ``Id``; ``State.Pid``; ``Mounts[]`` (Type, Source, Destination, RW, Propagation);
``NetworkSettings.Networks.*`` (IPAddress, IPPrefixLen,
MacAddress) and ``NetworkSettings.Ports``; and of ``HostConfig`` Privileged, CapAdd, CapDrop,
SecurityOpt, UsernsMode, PidMode, IpcMode, UTSMode, CgroupnsMode, NetworkMode, ReadonlyRootfs,
MaskedPaths, ReadonlyPaths, Runtime, Devices, DeviceCgroupRules, Memory, MemorySwap, NanoCpus,
CpuQuota, CpuPeriod, CpuShares, CpusetCpus, PidsLimit, Sysctls. The other document is the OCI spec
that the runtime was given. They are held against each other too: a spec that is weaker than the
request fails.

What is in effect is read from /proc and from the cgroup file systems, never asked of the engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from jaula.audit.model.host_snapshot import HostSnapshot
from jaula.errors import Conflict, InvalidRequest
from jaula.kernel import mountinfo
from jaula.kernel.mountinfo import MountInfo
from jaula.rootless import paths
from jaula.security import capabilities
from jaula.spec.runtime import Capabilities, Linux, Process, Spec

RESOLVE_LIMIT = 1 << 20


class AuditedContainer:
    """Requests and readings of one container; readings raise ``OSError``."""

    def __init__(
        self,
        inspect: Mapping[str, Any],
        spec: Spec,
        proc_root: str = "/proc",
        readings: HostSnapshot | None = None,
    ) -> None:
        self.inspect = inspect
        self.readings = readings or HostSnapshot(proc_root)
        self.spec = spec
        self.proc_root = proc_root
        self.pid = int((inspect.get("State") or {}).get("Pid") or 0)
        if self.pid <= 0:
            raise Conflict("the container does not run: there is nothing in effect to verify")
        self.host_config: Mapping[str, Any] = inspect.get("HostConfig") or {}
        self.linux = spec.linux or Linux()
        self.process = spec.process or Process(cwd="/")

    # -- what was requested ------------------------------------------------------------------

    @property
    def container_id(self) -> str:
        return str(self.inspect.get("Id") or "")

    @property
    def privileged(self) -> bool:
        return bool(self.host_config.get("Privileged"))

    def names(self, key: str) -> tuple[str, ...]:
        """A list of strings of ``HostConfig``; null is empty."""
        return tuple(str(item) for item in self.host_config.get(key) or ())

    def text(self, key: str) -> str:
        """A string of ``HostConfig``."""
        return str(self.host_config.get(key) or "")

    def number(self, key: str) -> int:
        """A number of ``HostConfig``; null is 0."""
        return int(self.host_config.get(key) or 0)

    def security_option(self, key: str) -> tuple[str, ...]:
        """Values of one ``--security-opt``; an option without a value gives ``("",)``."""
        found = []
        for option in self.names("SecurityOpt"):
            cut = min((option.find(c) for c in "=:" if c in option), default=len(option))
            if option[:cut] == key:
                found.append(option[cut + 1 :])
        return tuple(found)

    @cached_property
    def capabilities(self) -> Capabilities:
        """The sets that follow from the flags."""
        known = capabilities.mask(self.spec_capabilities.bounding) if self.privileged else -1
        return capabilities.resolve(
            self.names("CapAdd"),
            self.names("CapDrop"),
            privileged=self.privileged,
            **({"known": known} if known >= 0 else {}),
        )

    @property
    def spec_capabilities(self) -> Capabilities:
        return self.process.capabilities or Capabilities()

    @property
    def rootless(self) -> str | None:
        """What relaxes the proof of a container of an ordinary user's engine: None for root's.

        Such a container is verified from within the engine's user namespace.
        """
        uid = paths.rootless_uid()
        return None if uid is None else f"an engine of user {uid}, without root"

    @property
    def own_user_namespace(self) -> bool:
        return any(n.type == "user" for n in self.linux.namespaces)

    @property
    def own_pids(self) -> bool:
        """Whether the process namespace is the container's alone, as far as the request says."""
        return self.text("PidMode") in ("", "private")

    # -- what the kernel says ----------------------------------------------------------------

    def path(self, name: str) -> str:
        """A file of the first process, as evidence."""
        return f"{self.proc_root}/{self.pid}/{name}"

    def read(self, name: str) -> str:
        """The text of a file of the first process."""
        with open(self.path(name), encoding="utf-8", errors="surrogateescape") as file:
            return file.read(RESOLVE_LIMIT)

    def link(self, name: str) -> str:
        """Where a link of the first process points."""
        return os.readlink(self.path(name))

    def status(self, key: str) -> str:
        """A value of /proc/<pid>/status; ``KeyError`` where the kernel has none of that name."""
        for line in self.read("status").splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return value.strip()
        raise KeyError(key)

    @cached_property
    def mounts(self) -> tuple[MountInfo, ...]:
        """The mount table; read once."""
        return mountinfo.parse(self.read("mountinfo"))

    @cached_property
    def root(self) -> int:
        """A descriptor of the container's root, closed by :meth:`close`."""
        return os.open(self.path("root"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def host_mounts(self) -> tuple[MountInfo, ...]:
        """The mount table of whoever verifies, to find cgroup trees."""
        return self.readings.mounts

    @property
    def traceable(self) -> bool:
        """Whether the first process may be stopped for a moment; a frozen one would not."""
        return self.readings.traced and not (self.inspect.get("State") or {}).get("Paused")

    def started(self) -> str:
        """The start time of the first process, so that a reused pid is noticed."""
        try:
            return self.read("stat").rpartition(")")[2].split()[19]
        except (OSError, IndexError):
            raise Conflict(
                f"process {self.pid} of the container is gone", hint="it may have just stopped"
            ) from None

    def close(self) -> None:
        """Close what was opened."""
        if "root" in self.__dict__:
            os.close(self.__dict__.pop("root"))


def integer(text: str) -> int:
    """A number that a kernel file holds; raises ``InvalidRequest`` naming it."""
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(f"the kernel answered {text[:40]!r} where a number was due") from None
