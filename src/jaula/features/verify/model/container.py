"""The audited container: what was requested, and its init process as the kernel shows it.

The request comes from two documents. Of the engine's inspect document only these keys are used:
``Changes``; ``Id``; ``Image``; ``PauseRequested``; ``RequestSeal``; ``ResolvConfPath``;
``State.Pid``;
``GraphDriver``; ``Mounts[]`` (Type, Source, Destination, RW, Propagation);
``NetworkSettings.Networks.*`` (IPAddress, IPPrefixLen, MacAddress, EndpointID, Gateway) and
``NetworkSettings.Ports``; ``Pod``; and of ``HostConfig`` Privileged, CapAdd, CapDrop, SecurityOpt,
UsernsMode, PidMode, IpcMode, UTSMode, CgroupnsMode, NetworkMode, ReadonlyRootfs, MaskedPaths,
ReadonlyPaths, Runtime, Devices, DeviceCgroupRules, DeviceRequests, Memory, MemorySwap,
MemoryReservation, MemorySwappiness, OomKillDisable, NanoCpus, CpuQuota, CpuPeriod, CpuShares,
CpusetCpus, CpusetMems, BlkioWeight, BlkioWeightDevice, the four BlkioDevice rates, PidsLimit,
Sysctls. Of the documents of its exec sessions: ``Running``, ``Pid`` and
``ProcessConfig.privileged``. The other document is the OCI spec that the runtime received. Spec
and request are also compared: a spec that is weaker than the request fails.

The effective state is read from /proc and the cgroup file systems, never requested from the engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from jaula import __version__
from jaula.errors import Conflict, InvalidRequest
from jaula.features.verify.model.host_process import KINDS, HostProcess
from jaula.features.verify.model.host_snapshot import HostSnapshot
from jaula.features.verify.model.network_view import NetworkView, read_network
from jaula.kernel import mountinfo
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.mounts import is_mount_root, mount_id
from jaula.kernel.namespace_threads import in_unshared_thread, join_namespaces
from jaula.kernel.openat2 import open_in_root
from jaula.rootless import xdg_paths
from jaula.security import capability_sets
from jaula.spec.annotations import VERSION_ANNOTATION
from jaula.spec.api_documents import DeviceRequest
from jaula.spec.runtime_spec import Capabilities, Linux, Process, Spec

if TYPE_CHECKING:
    from jaula.security.cdi import ContainerEdits

READ_LIMIT = 1 << 20  # bytes of a /proc file
OCI_NAMES = {"mnt": "mount", "net": "network"}
"""The spec's names of entries of /proc/<pid>/ns, where they differ."""

POD_FIELDS = {
    "--userns=host": "hostUsers",
    "--pid=host": "hostPID",
    "--ipc=host": "hostIPC",
    "--network=host": "hostNetwork",
    "--uts=host": "hostNetwork",
    "--privileged": "privileged",
    "--pids-limit=-1": "the pod's cgroup has the limit",
}
"""Fields of a pod that have the effect of a flag of ``jaula run``."""


class AuditedContainer:
    """Request and kernel state of one container; methods that read the kernel raise ``OSError``."""

    def __init__(
        self,
        inspect: Mapping[str, Any],
        spec: Spec,
        proc_root: str = "/proc",
        snapshot: HostSnapshot | None = None,
        execs: Sequence[Mapping[str, Any]] = (),
        others: Sequence[AuditedContainer] = (),
    ) -> None:
        """``others`` are the other running containers of its pod, the sandbox among them."""
        self.inspect = inspect
        self.others = others
        self.execs = execs
        self.snapshot = snapshot or HostSnapshot(proc_root)
        self.spec = spec
        self.proc_root = proc_root
        self.pid = int((inspect.get("State") or {}).get("Pid") or 0)
        if self.pid <= 0:
            raise Conflict("the container is not running: there is no state to verify")
        self.host_config: Mapping[str, Any] = inspect.get("HostConfig") or {}
        self.linux = spec.linux or Linux()
        self.process = spec.process or Process(cwd="/")

    # -- request -----------------------------------------------------------------------------

    @property
    def container_id(self) -> str:
        return str(self.inspect.get("Id") or "")

    @property
    def state_directory(self) -> str | None:
        """The engine's data directory, which has a directory of each container's files."""
        path = str(self.inspect.get("ResolvConfPath") or "")
        own = f"/containers/{self.container_id}/resolv.conf"
        return os.path.realpath(path.removesuffix(own)) if path.endswith(own) else None

    @property
    def pod(self) -> Mapping[str, Any]:
        """The pod of a container of Kubernetes; empty for another container."""
        return self.inspect.get("Pod") or {}

    @property
    def is_sandbox(self) -> bool:
        """Whether it is the sandbox of a pod."""
        return bool(self.pod) and self.pod.get("Sandbox") == self.container_id

    @property
    def pod_name(self) -> str:
        """The name of the container in its pod; ``sandbox`` for the sandbox."""
        return str(self.pod.get("Container") or "sandbox")

    @property
    def on_pod_network(self) -> bool:
        """Whether CNI plugins connect its network namespace: it is a sandbox with its own."""
        return self.is_sandbox and self.text("NetworkMode") == "none"

    @property
    def on_sink(self) -> bool:
        """Whether its network is the sink of a honeypot."""
        return self.text("Profile") == "honeypot"

    @property
    def on_engine_network(self) -> bool:
        """Whether its network namespace is its own, and the engine alone sets it up."""
        mode = self.text("NetworkMode")
        shared = mode == "host" or mode.startswith("container:")
        return not (shared or self.on_pod_network or self.on_sink)

    def flag(self, name: str) -> str:
        """Return a flag of ``jaula run``, or the field of a pod that has its effect."""
        return POD_FIELDS.get(name, name) if self.pod else name

    def joined(self, mode: str) -> AuditedContainer | None:
        """Return the container of the pod in ``container:ID``, or None."""
        id = mode.removeprefix("container:")
        return next((other for other in self.others if other.container_id == id), None)

    def shared_with(self, mode: str) -> str:
        """Return the container in ``container:ID`` as a report names it."""
        if self.pod and mode == f"container:{self.pod.get('Sandbox')}":
            return "the pod"
        other = self.joined(mode)
        return mode if other is None else f"container {other.pod_name} of the pod"

    @property
    def privileged(self) -> bool:
        return bool(self.host_config.get("Privileged"))

    def names(self, key: str) -> tuple[str, ...]:
        """Return a list of strings of ``HostConfig``; null is empty."""
        return tuple(str(item) for item in self.host_config.get(key) or ())

    def text(self, key: str) -> str:
        """Return a string of ``HostConfig``."""
        return str(self.host_config.get(key) or "")

    def number(self, key: str) -> int:
        """Return a number of ``HostConfig``; null is 0."""
        return int(self.host_config.get(key) or 0)

    def security_option(self, key: str) -> tuple[str, ...]:
        """Return the values of one ``--security-opt``; without a value it gives ``("",)``."""
        values = []
        for option in self.names("SecurityOpt"):
            cut = min((option.find(c) for c in "=:" if c in option), default=len(option))
            if option[:cut] == key:
                values.append(option[cut + 1 :])
        return tuple(values)

    @cached_property
    def capabilities(self) -> Capabilities:
        """The capability sets that the flags request."""
        if self.starter is not None and not self.names("CapAdd") and not self.privileged:
            return self.spec_capabilities
        known = capability_sets.mask(self.spec_capabilities.bounding) if self.privileged else -1
        return capability_sets.resolve(
            self.names("CapAdd"),
            self.names("CapDrop"),
            privileged=self.privileged,
            **({"known": known} if known >= 0 else {}),
        )

    @property
    def starter(self) -> str | None:
        """The engine's version that started it, if that is another: its defaults are in the spec.

        The check of the seal compares the spec with the one of the start.
        """
        version = self.spec.annotations.get(VERSION_ANNOTATION)
        return None if version == __version__ else version

    @property
    def spec_capabilities(self) -> Capabilities:
        return self.process.capabilities or Capabilities()

    @property
    def rootless(self) -> str | None:
        """Why the checks are relaxed for a rootless engine's container; None for root's engine.

        Such a container is verified from within the engine's user namespace.
        """
        uid = xdg_paths.rootless_uid()
        return None if uid is None else f"an engine of user {uid}, without root"

    @property
    def own_user_namespace(self) -> bool:
        return any(n.type == "user" for n in self.linux.namespaces)

    @property
    def own_pids(self) -> bool:
        """Whether the request gives the container its own pid namespace.

        Other containers of its pod may share it.
        """
        return self.text("PidMode") in ("", "private")

    @cached_property
    def own_kinds(self) -> frozenset[str]:
        """The kinds of namespaces that the runtime created for the container."""
        created = {n.type for n in self.linux.namespaces if not n.path}
        return frozenset(kind for kind in KINDS if OCI_NAMES.get(kind, kind) in created)

    @cached_property
    def device_edits(self) -> tuple[ContainerEdits, ...]:
        """The edits of the requested CDI devices, from the files that the host has now.

        :raises InvalidRequest: when no file defines one of them any more.
        """
        documents = self.host_config.get("DeviceRequests") or ()
        if not documents:
            return ()
        devices = self.snapshot.cdi_devices
        requests = [msgspec.convert(document, DeviceRequest) for document in documents]
        return devices.edits(devices.select(requests))

    # -- kernel state ------------------------------------------------------------------------

    def path(self, name: str) -> str:
        """Return the path of a file of the init process, as evidence."""
        return f"{self.proc_root}/{self.pid}/{name}"

    def read(self, name: str) -> str:
        """Return the text of a file of the init process."""
        with open(self.path(name), encoding="utf-8", errors="surrogateescape") as file:
            return file.read(READ_LIMIT)

    def link(self, name: str) -> str:
        """Return the target of a link of the init process."""
        return os.readlink(self.path(name))

    def status(self, key: str) -> str:
        """Return a value of /proc/<pid>/status.

        :raises KeyError: when the kernel has no such field.
        """
        for line in self.read("status").splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return value.strip()
        raise KeyError(key)

    @cached_property
    def _mount_view(self) -> tuple[tuple[MountInfo, ...], int]:
        """The mount table of the mount namespace, and a descriptor of its root.

        Both are read by a thread in the mount namespace: the kernel shows /proc/<pid>/mountinfo
        from the root of the process, which may have called chroot(2).
        """

        def read() -> tuple[bytes, int]:
            # The host's /proc, opened before the thread leaves the host's mounts.
            thread = os.open("/proc/thread-self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                join_namespaces(self.pid, ("mnt",))
                table = os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=thread)
            finally:
                os.close(thread)
            with open(table, "rb") as file:
                text = file.read(READ_LIMIT)
            return text, os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

        text, root = in_unshared_thread(read)
        try:
            return mountinfo.parse(text.decode("utf-8", "surrogateescape")), root
        except ValueError:
            os.close(root)
            raise

    @property
    def mounts(self) -> tuple[MountInfo, ...]:
        """The mount table, read once."""
        return self._mount_view[0]

    @property
    def root(self) -> int:
        """A descriptor of the container's root, closed by :meth:`close`."""
        return self._mount_view[1]

    @cached_property
    def _mounts_by_id(self) -> dict[int, MountInfo]:
        return {mount.mount_id: mount for mount in self.mounts}

    def mount_of(self, path: str) -> MountInfo | None:
        """Return the mount that a path of the container is on; None if the path does not exist."""
        try:
            fd = open_in_root(self.root, path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return self._mounts_by_id.get(mount_id(fd))
        finally:
            os.close(fd)

    def mount_at(self, path: str) -> MountInfo | None:
        """Return the visible mount at exactly ``path``, or None.

        Symbolic links of the image are followed: a mount on /var/run/x may be at /run/x.
        """
        try:
            fd = open_in_root(self.root, path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return self._mounts_by_id.get(mount_id(fd)) if is_mount_root(fd) else None
        finally:
            os.close(fd)

    @cached_property
    def network(self) -> NetworkView:
        """The network namespace, read by a thread that has joined it."""

        def read() -> NetworkView:
            join_namespaces(self.pid, ("net",))
            return read_network()

        return in_unshared_thread(read)

    @property
    def host_mounts(self) -> tuple[MountInfo, ...]:
        """The mount table of the verifying process, for cgroup hierarchies."""
        return self.snapshot.mounts

    @property
    def traceable(self) -> bool:
        """Whether the init process may be stopped briefly; a frozen one does not stop."""
        return self.snapshot.trace_processes and not (self.inspect.get("State") or {}).get("Paused")

    def started(self) -> str:
        """Return the start time of the init process, to detect a reused pid.

        :raises Conflict: when the process no longer exists.
        """
        try:
            return self.read("stat").rpartition(")")[2].split()[19]
        except (OSError, IndexError):
            raise Conflict(
                f"process {self.pid} of the container no longer exists",
                hint="the container may have stopped",
            ) from None

    @cached_property
    def namespaces(self) -> dict[str, str]:
        """The namespaces of the init process, by entry of /proc/<pid>/ns."""
        return {kind: self.link(f"ns/{kind}") for kind in KINDS}

    @property
    def reader_namespaces(self) -> Mapping[str, str]:
        """The namespaces of the verifying process."""
        return self.snapshot.reader_namespaces

    @cached_property
    def members(self) -> tuple[HostProcess, ...]:
        """The processes inside, the init process included.

        A process is inside if it has the mount namespace, or the pid namespace with the user
        namespace of the container or the reader. Processes of the runtime that are about to execute
        a program inside are left out, and so are those of the other containers of its pod.
        """
        own, reader = self.namespaces, self.reader_namespaces["user"]
        index = self.snapshot.by_namespace
        candidates = {p.pid: p for kind in ("mnt", "pid") for p in index.get(own[kind], ())}
        return tuple(
            process
            for process in candidates.values()
            if (
                process.namespaces["mnt"] == own["mnt"]
                or (
                    process.namespaces["pid"] == own["pid"]
                    and self.own_pids
                    and process.namespaces["user"] in (own["user"], reader)
                    and self.other_of(process) is None
                )
            )
            and not self.is_runtime(process)
        )

    def other_of(self, process: HostProcess) -> AuditedContainer | None:
        """Return the other container of the pod that a process is in, or None.

        It has the mount namespace of that container. The report on that container says whether it
        has its cgroup and no more than its privileges.
        """
        for other in self.others:
            try:
                mounts = other.namespaces["mnt"]
                if mounts == self.reader_namespaces["mnt"]:
                    continue  # it has exited, and another process has its number
                if process.namespaces["mnt"] == mounts or other.is_runtime(process):
                    return other
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has exited
        return None

    @cached_property
    def shim(self) -> int:
        """The pid of the parent of the init process."""
        return int(self.status("PPid"))

    def is_runtime(self, process: HostProcess) -> bool:
        """Return whether a process is the shim, or a descendant of it that has executed nothing."""
        try:
            shim = os.stat(f"{self.proc_root}/{self.shim}/exe")
            while process.pid != self.pid:
                executable = os.stat(f"{self.proc_root}/{process.pid}/exe")
                if (executable.st_dev, executable.st_ino) != (shim.st_dev, shim.st_ino):
                    return False
                if process.pid == self.shim:
                    return True
                process = self.snapshot.processes[process.parent]
        except (FileNotFoundError, ProcessLookupError, PermissionError, KeyError):
            pass
        return False

    def privileged_exec(self, process: HostProcess) -> bool:
        """Return whether ``exec --privileged`` created a process, an ancestor or its session."""
        pids = {
            int(execed.get("Pid") or 0)
            for execed in self.execs
            if execed.get("Running") and (execed.get("ProcessConfig") or {}).get("privileged")
        } - {0}
        if process.session in pids:
            return True
        seen: HostProcess | None = process
        while seen is not None and seen.pid != self.pid:
            if seen.pid in pids:
                return True
            seen = self.snapshot.processes.get(seen.parent)
        return False

    def close(self) -> None:
        """Close the descriptors."""
        if "_mount_view" in self.__dict__:
            os.close(self.__dict__.pop("_mount_view")[1])


def integer(text: str) -> int:
    """Parse a number of a kernel file.

    :raises InvalidRequest: when the text is not a number.
    """
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(f"the kernel returned {text[:40]!r} instead of a number") from None
