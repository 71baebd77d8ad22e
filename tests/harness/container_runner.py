"""Start containers with the runtime alone: specs, and directories for their files."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from jaula.runtime.runtime_client import Runtime, Sandbox, Shim, SpareInit
from jaula.runtime.shim_protocol import AttachStream, Event, ExitRecord, LogSetup, StartRequest
from jaula.spec import runtime_spec
from jaula.spec.rootfs import OverlayRoot

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_NET_RAW",
    "CAP_KILL",
)
NULL = (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9))
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "user", "cgroup")
_numbers = itertools.count()


def make_spec(
    args: tuple[str, ...],
    *,
    cgroup: str,
    first_id: int,
    terminal: bool = False,
    mounts: tuple[runtime_spec.Mount, ...] = (),
    cwd: str = "/",
    user: runtime_spec.User | None = None,
    resources: runtime_spec.Resources | None = None,
    namespaces: tuple[str, ...] = NAMESPACES,
) -> runtime_spec.Spec:
    """Return a small spec like the engine's."""
    mapping = (runtime_spec.IDMapping(0, first_id, 65536),) if "user" in namespaces else ()
    secure = ("nosuid", "noexec", "nodev")
    return runtime_spec.Spec(
        process=runtime_spec.Process(
            cwd=cwd,
            args=args,
            env=("PATH=/bin", "TERM=xterm"),
            terminal=terminal,
            user=user or runtime_spec.User(),
            capabilities=runtime_spec.Capabilities(
                bounding=CAPABILITIES, effective=CAPABILITIES, permitted=CAPABILITIES
            ),
            oom_score_adj=0,
            rlimits=(runtime_spec.Rlimit("RLIMIT_NOFILE", 256, 128),),
        ),
        root=runtime_spec.Root("rootfs"),
        hostname="box",
        mounts=(
            runtime_spec.Mount("/proc", "proc", "proc", secure),
            runtime_spec.Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755")),
            runtime_spec.Mount(
                "/dev/pts",
                "devpts",
                "devpts",
                ("newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            ),
            runtime_spec.Mount("/sys", "sysfs", "sysfs", (*secure, "ro")),
            runtime_spec.Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*secure, "ro")),
            *mounts,
        ),
        linux=runtime_spec.Linux(
            namespaces=tuple(runtime_spec.Namespace(kind) for kind in namespaces),
            uid_mappings=mapping,
            gid_mappings=mapping,
            devices=tuple(
                runtime_spec.Device(f"/dev/{name}", "c", 1, minor) for name, minor in NULL
            ),
            cgroups_path=cgroup,
            resources=resources or runtime_spec.Resources(pids=runtime_spec.Pids(100)),
            masked_paths=("/proc/kcore", "/proc/keys", "/sys/firmware"),
            readonly_paths=("/proc/sys", "/proc/bus"),
        ),
    )


class Container:
    """One started container and its output."""

    def __init__(
        self, shim: Shim, client: socket.socket, ended: asyncio.Future[ExitRecord]
    ) -> None:
        self.shim = shim
        self.client = client
        self.ended = ended
        self.events: list[Event] = []

    async def output(self) -> str:
        """Return everything until the container closes the connection."""
        loop = asyncio.get_running_loop()
        self.client.setblocking(False)
        text = b""
        while data := await loop.sock_recv(self.client, 1 << 16):
            text += data
        return text.decode()


class ContainerRunner:
    """Starts containers below one temporary directory."""

    def __init__(self, base: Path, runtime: Runtime) -> None:
        self.base = base
        self.runtime = runtime
        self.layer = base / "layer"
        self.cgroup_parent = f"/jlt-rt-{os.getpid()}"
        self.first_id = 1_900_000_000 + (os.getpid() % 1000) * 65536
        asyncio.run(self._wait_for_zygote())

    async def _wait_for_zygote(self) -> None:
        """Wait until the zygote has warmed up; it has all memory of the process of the tests."""
        mapping = runtime_spec.IDMapping(0, self.first_id, 65536)
        (await self.runtime.sandbox((mapping,), network=False)).close()

    async def spare_init(self, name: str, sandbox: Sandbox) -> SpareInit:
        """Create a spare init for the container ``name``."""
        cgroup = f"{self.cgroup_parent}/{name}"
        shape = make_spec(("true",), cgroup=cgroup, first_id=self.first_id)
        mount_point = self.base / "spare"
        mount_point.mkdir(mode=0o711, exist_ok=True)
        return await self.runtime.spare_init(name, sandbox, shape, str(mount_point))

    async def start(
        self,
        *args: str,
        stdin: bool = False,
        sandbox: bool = True,
        log: LogSetup | None = None,
        ahead: Callable[[str], Awaitable[None]] | None = None,
        **spec: object,
    ) -> Container:
        """Start a program; ``spec`` goes to :func:`make_spec`.

        With ``ahead``, which gets the path of the cgroup, a spare init is created before. Its shape
        is that of a spec without ``spec``.
        """
        name = f"c{next(_numbers)}"
        home = self.base / name
        for part in ("upper", "work", "run/bundle"):
            (home / part).mkdir(parents=True)
        home.chmod(0o711)
        document = make_spec(
            args,
            cgroup=f"{self.cgroup_parent}/{name}",
            first_id=self.first_id,
            **spec,  # type: ignore[arg-type]
        )
        (home / "run/bundle/config.json").write_bytes(runtime_spec.encode(document))
        ended: asyncio.Future[ExitRecord] = asyncio.get_running_loop().create_future()
        events: list[Event] = []

        def on_event(event: Event) -> None:
            events.append(event)
            if isinstance(event, ExitRecord):
                ended.set_result(event)

        ours, theirs = socket.socketpair()
        assert document.linux is not None
        assert document.process is not None
        prepared = await self.runtime.sandbox(document.linux.uid_mappings) if sandbox else None
        spare = None
        try:
            if ahead is not None:
                assert prepared is not None
                spare = await self.spare_init(name, prepared)
                await ahead(f"{self.cgroup_parent}/{name}")
            shim = await self.runtime.start(
                StartRequest(
                    name,
                    str(home / "run/bundle"),
                    str(home / "run"),
                    OverlayRoot((str(self.layer),), str(home / "upper"), str(home / "work")),
                    log or LogSetup("json-file", {}, str(home / "log")),
                    tty=document.process.terminal,
                    stdin_open=stdin,
                    stdin_once=stdin,
                ),
                prepared,
                [(theirs.detach(), AttachStream(stdin=stdin, framed=False))],
                on_event,
            )
        finally:
            if spare is not None:
                spare.close()
            if prepared is not None:
                prepared.close()
        container = Container(shim, ours, ended)
        container.events = events
        return container
