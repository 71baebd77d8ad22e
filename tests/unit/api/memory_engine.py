"""A small engine with its containers in memory, for tests of the server."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

from jaula.errors import (
    Conflict,
    InvalidRequest,
    NotAuthorized,
    NotFound,
    NotModified,
    RuntimeFailure,
)
from jaula.features.build.build_options import BuildOptions, PruneOptions
from jaula.images.image_platform import format_platform
from jaula.spec.api_documents import (
    ContainerCreate,
    ContainerUpdate,
    ExecCreate,
    RegistryAuth,
    VolumeCreate,
)
from jaula.spec.api_params import (
    AttachOptions,
    ContainerCreated,
    LogOptions,
    SendStream,
    WaitResult,
)
from jaula.spec.image_documents import Platform
from jaula.storage.path_resolve import PathStat

Document = dict[str, Any]


class Containers:
    """Containers are names; ``calls`` records what was asked."""

    def __init__(self) -> None:
        self.known: dict[str, ContainerCreate] = {}
        self.running: set[str] = set()
        self.calls: list[tuple[Any, ...]] = []
        self.waiters: list[asyncio.Future[WaitResult]] = []
        self.attached: list[tuple[int, AttachOptions]] = []
        self.records: list[tuple[str, bytes]] = []
        self.closed: list[str] = []
        self.released = asyncio.Event()
        self.broken = False  # a stream ends before its time
        self.held = 0  # starts that wait for ``released``
        self.flood_size = 0
        self.produced = 0

    def _find(self, ref: str) -> ContainerCreate:
        if ref not in self.known:
            raise NotFound(f"No such container: {ref}")
        return self.known[ref]

    async def create(
        self, body: ContainerCreate, name: str | None, platform: str | None
    ) -> ContainerCreated:
        if name in self.known:
            raise Conflict(f"The container name {name!r} is in use", hint="remove it")
        self.known[name or "unnamed"] = body
        self.calls.append(("create", name, platform))
        return ContainerCreated(name or "unnamed", ("a warning",))

    async def start(self, ref: str, *, checkpoint: str = "", checkpoint_dir: str = "") -> None:
        body = self._find(ref)
        if ref in self.running:
            raise NotModified("already running")
        if body.cmd == ("missing",):
            raise RuntimeFailure("program not found", exit_code=127)
        if body.cmd == ("slow",):
            self.held += 1
            await self.released.wait()
            self.held -= 1
        self.running.add(ref)

    async def stop(self, ref: str, timeout: int | None, signal: str | None) -> None:
        self._find(ref)
        self.calls.append(("stop", ref, timeout, signal))

    async def restart(self, ref: str, timeout: int | None, signal: str | None) -> None:
        self.calls.append(("restart", ref, timeout, signal))

    async def kill(self, ref: str, signal: str | None) -> None:
        self.calls.append(("kill", ref, signal))

    async def pause(self, ref: str) -> None:
        raise KeyError("a secret of the inside")

    async def unpause(self, ref: str) -> None:
        raise OSError(28, "No space left on device")

    async def rename(self, ref: str, new: str) -> None:
        self.known[new] = self.known.pop(ref)

    async def remove(self, ref: str, *, force: bool, volumes: bool) -> None:
        self._find(ref)
        self.calls.append(("remove", ref, force, volumes))
        del self.known[ref]

    async def wait(self, ref: str, condition: str) -> asyncio.Future[WaitResult]:
        self._find(ref)
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        self.waiters.append(future)
        return future

    async def inspect(self, ref: str, *, size: bool) -> Document:
        self._find(ref)
        return {"Id": ref, "Size": size, "Config": {}, "NetworkSettings": {"Networks": {}}}

    async def list(
        self, *, all: bool, limit: int | None, filters: dict[str, Any], size: bool, pods: bool
    ) -> list[Document]:
        self.calls.append(("list", all, limit, filters, size, pods))
        members = {"HostConfig": {}, "NetworkSettings": {"Networks": {}}}
        return [{"Names": [f"/{name}"], **members} for name in self.known]

    async def top(self, ref: str, ps_args: str) -> Document:
        return {"Titles": [ps_args], "Processes": []}

    async def changes(self, ref: str) -> list[Document]:
        return [{"Path": "/caf\udce9", "Kind": 1}]

    async def attach(self, ref: str, fd: int, options: AttachOptions) -> None:
        if ref == "refuses":
            os.close(fd)
            raise Conflict("the container is paused")
        self.attached.append((fd, options))

    def tty(self, ref: str, *, control: bool = False) -> bool:
        return self._find(ref).tty

    async def logs(self, ref: str, options: LogOptions) -> AsyncIterator[tuple[str, bytes]]:
        self.calls.append(("logs", options))
        try:
            for record in self.records:
                yield record
            while self.produced < self.flood_size:
                self.produced += 65536
                yield "stdout", b"x" * 65536
        finally:
            self.closed.append("logs")

    def log_follower(self, ref: str, options: LogOptions) -> SendStream:
        self._find(ref)

        async def send(client: int, chunked: bool, begin: Callable[[], Awaitable[None]]) -> bool:
            loop = asyncio.get_running_loop()
            try:
                with socket.socket(fileno=client) as sock:
                    await begin()
                    await self.released.wait()
                    if self.broken:
                        return False
                    text = b"9\r\nreleased\n\r\n0\r\n\r\n" if chunked else b"released\n"
                    await loop.sock_sendall(sock, text)
                return True
            finally:
                self.closed.append("logs")

        return send

    async def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[Document]:
        self._find(ref)
        yield {"read": 1}
        while stream:
            await asyncio.sleep(0.01)
            yield {"read": 2}

    async def path_stat(self, ref: str, path: str) -> PathStat:
        self._find(ref)
        return PathStat(path, 3, 0o644, "2024-01-01T00:00:00Z")

    async def copy_out(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        return await self.path_stat(ref, path), self.export(ref)

    async def copy_in(
        self, ref: str, path: str, stream: AsyncIterator[bytes], *, keep_kinds: bool, as_user: bool
    ) -> None:
        self._find(ref)
        data = b"".join([piece async for piece in stream])
        self.calls.append(("copy in", ref, path, data, keep_kinds, as_user))

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        self._find(ref)
        yield b"first"
        if ref == "broken":
            raise ValueError("in the middle")
        yield b"second"

    async def update(self, ref: str, body: ContainerUpdate) -> Sequence[str]:
        self.calls.append(("update", ref, body.memory))
        return ()

    async def resize(self, ref: str, h: int, w: int) -> None:
        self.calls.append(("resize", ref, h, w))

    async def prune(self, filters: dict[str, Any]) -> Document:
        return {"ContainersDeleted": [], "SpaceReclaimed": 0}

    def spec(self, ref: str) -> bytes:
        self._find(ref)
        return b'{"ociVersion":"1.2.0"}'


class Execs:
    def __init__(self) -> None:
        self.known: dict[str, ExecCreate] = {}
        self.started: list[tuple[Any, ...]] = []

    async def create(self, ref: str, body: ExecCreate) -> str:
        self.known["e1"] = body
        return "e1"

    async def start(
        self,
        exec_id: str,
        fd: int | None,
        early: bytes,
        detach: bool,
        tty: bool,
        console: tuple[int, int] | None,
    ) -> None:
        self.started.append((exec_id, early, detach, tty, console))
        if fd is None:
            return
        if self.known[exec_id].cmd == ("missing",):
            os.close(fd)
            raise RuntimeFailure("program not found", exit_code=127)
        with socket.socket(fileno=fd) as client:
            client.setblocking(True)
            client.sendall(b"echo:" + early)

    def inspect(self, exec_id: str) -> Document:
        return {"ID": exec_id}

    async def resize(self, exec_id: str, h: int, w: int) -> None:
        pass

    def check(self, exec_id: str) -> None:
        if exec_id not in self.known:
            raise NotFound(f"No such exec instance: {exec_id}")


def shown(platform: Platform | None) -> str:
    return format_platform(platform) if platform else ""


class Images:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.received = 0
        self.error: Exception | None = None
        self.refuse_after = -1

    async def list(self, **options: Any) -> list[Document]:
        self.calls.append(("list", options["manifests"], options["identity"]))
        return [{"Id": "x", "Size": 1, "Descriptor": {"digest": "d"}}]

    def inspect(
        self, ref: str, platform: Platform | None, *, manifests: bool, identity: bool
    ) -> Document:
        self.calls.append(("inspect", ref))
        more: Document = {"Identity": {}} if identity else {}
        if manifests:
            more["Manifests"] = []
        return {
            "Id": ref,
            "Size": 1,
            "Config": {},
            "Platform": shown(platform),
            "Descriptor": {},
        } | more

    def history(self, ref: str, platform: Platform | None) -> list[Document]:
        return [{"Id": ref, "Platform": shown(platform)}]

    async def attestations(
        self, ref: str, platform: Platform | None, types: Sequence[str], *, statement: bool
    ) -> list[Document]:
        return [{"For": ref, "Platform": shown(platform), "Types": types, "Statement": statement}]

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        self.calls.append(("tag", ref, repo, tag))

    async def remove(
        self,
        ref: str,
        *,
        force: bool,
        noprune: bool,
        platforms: Sequence[Platform],
        unnamed: bool = False,
    ) -> list[Document]:
        self.calls.append(("remove", ref, *map(shown, platforms)))
        return [{"Untagged": ref}]

    async def load(
        self, stream: AsyncIterator[bytes], *, quiet: bool, platforms: Sequence[Platform]
    ) -> AsyncIterator[Document]:
        self.calls.append(("load", *map(shown, platforms)))
        try:
            async for chunk in stream:
                self.received += len(chunk)
                if 0 <= self.refuse_after < self.received:
                    raise InvalidRequest("not an archive")
        except Exception as error:
            self.error = error
            raise
        yield {"stream": f"{self.received} bytes"}

    async def save(
        self, names: Sequence[str], platforms: Sequence[Platform]
    ) -> AsyncIterator[bytes]:
        self.calls.append(("save", *names, *map(shown, platforms)))
        if "absent" in names:
            raise NotFound("No such image: absent")
        yield b"tar"

    async def import_(
        self,
        stream: AsyncIterator[bytes],
        repo: str,
        tag: str,
        changes: Sequence[str],
        message: str,
        platform: Platform | None,
    ) -> AsyncIterator[Document]:
        data = b"".join([chunk async for chunk in stream])
        self.calls.append(("import", repo, tag, tuple(changes), message, platform, data))
        yield {"status": "sha256:0"}

    async def pull(
        self, name: str, tag: str, platform: str | None, auth: RegistryAuth | None
    ) -> AsyncIterator[Document]:
        self.calls.append(("pull", name, tag, auth))
        if tag != "late":
            raise NotFound(f"no registry answers for {name}")
        yield {"status": "Pulling"}
        raise NotFound("the layer is gone")

    async def prune(self, filters: dict[str, Any]) -> Document:
        return {"ImagesDeleted": None, "SpaceReclaimed": 0}


class Volumes:
    async def create(self, body: VolumeCreate, *, transaction: str = "") -> Document:
        return {"Name": body.name}

    async def list(self, filters: dict[str, Any]) -> Document:
        return {"Volumes": [], "Warnings": None}

    def inspect(self, name: str) -> Document:
        raise NotFound(f"get {name}: no such volume")

    async def remove(
        self,
        name: str,
        *,
        force: bool,
        transaction: str | None = None,
        id: str | None = None,
    ) -> None:
        return None

    async def prune(self, filters: dict[str, Any]) -> Document:
        return {"VolumesDeleted": None, "SpaceReclaimed": 0}


class Networks:
    def list(self, filters: dict[str, Any]) -> list[Document]:
        return [{"Name": "bridge"}]

    def inspect(self, ref: str) -> Document:
        return {"Name": ref}

    async def create(self, body: Any) -> Document:
        return {"Id": body.name}

    async def remove(self, ref: str) -> None:
        return None

    async def connect(self, ref: str, body: Any) -> None:
        return None

    async def disconnect(self, ref: str, body: Any) -> None:
        return None

    async def prune(self, filters: dict[str, Any]) -> Document:
        return {"NetworksDeleted": None}


class System:
    def __init__(self) -> None:
        self.happened: asyncio.Queue[Document] = asyncio.Queue()
        self.watchers = 0

    async def info(self) -> Document:
        commits = ("ContainerdCommit", "RuncCommit", "InitCommit", "RegistryConfig")
        return {"ID": "memory", **{name: {} for name in commits}}

    def version(self) -> Document:
        return {"ApiVersion": "1.55"}

    async def df(self) -> Document:
        return {"LayersSize": 1, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []}

    async def events(
        self, since: float | None, until: float | None, filters: dict[str, Any]
    ) -> AsyncIterator[Document]:
        self.watchers += 1
        try:
            while True:
                yield await self.happened.get()
        finally:
            self.watchers -= 1

    async def ping(self) -> None:
        return None


class Builds:
    """Remembers what was asked; a build says one line and ends, or fails as told."""

    def __init__(self) -> None:
        self.asked: list[BuildOptions] = []
        self.pruned: list[PruneOptions] = []
        self.context = b""
        self.error: Exception | None = None

    async def build(
        self, options: BuildOptions, stream: AsyncIterator[bytes]
    ) -> AsyncIterator[Document]:
        self.asked.append(options)
        self.context = b"".join([piece async for piece in stream])
        yield {"stream": "Step 1/1 : FROM x\n"}
        if self.error is not None:
            raise self.error

    async def cancel(self, build_id: str) -> None:
        raise NotFound(f"no build {build_id}")

    async def prune(self, options: PruneOptions) -> Document:
        self.pruned.append(options)
        return {"CachesDeleted": None, "SpaceReclaimed": 0}

    def check_session(self, id: str) -> None:
        return None

    async def session(self, id: str, descriptor: int, early: bytes) -> None:
        os.write(descriptor, b"session " + id.encode() + b" " + early)
        os.close(descriptor)


class Access:
    """The caller of a connection; root unless a test says otherwise."""

    def __init__(self, caller: str = "0", *, allowed: bool = True, bodies: bool = True) -> None:
        self.caller = caller
        self.is_allowed = allowed
        self.bodies = bodies

    @property
    def is_root(self) -> bool:
        return self.caller == "0"

    def require_access(self, request: str) -> None:
        if not self.is_allowed:
            raise NotAuthorized(f"{self.caller} may not use this engine: {request}")

    def require_body(self, request: str) -> None:
        if not self.bodies:
            raise NotAuthorized(f"{self.caller} may not change anything: {request}")


class MemoryEngine(SimpleNamespace):
    """An engine in memory. ``syncs`` counts the waits for the disk, ``sync_error`` ends them."""

    access: Access
    containers: Containers
    execs: Execs
    images: Images
    builds: Builds
    volumes: Volumes
    networks: Networks
    system: System

    def __init__(self) -> None:
        images = Images()
        super().__init__(
            access=Access(),
            containers=Containers(),
            execs=Execs(),
            images=images,
            builds=Builds(),
            distribution=images,
            volumes=Volumes(),
            networks=Networks(),
            system=System(),
            users={},
            syncs=0,
            sync_error=None,
        )

    def service(self, make: Callable[..., Any]) -> Any:
        """Return the service of a feature: its function is named ``NAME_api``."""
        return getattr(self, make.__name__.removesuffix("_api"))

    def act_for(self, user: str) -> MemoryEngine:
        """Return an engine of its own for a user of the web view."""
        if user == "refused":
            raise NotAuthorized("the caller may not speak for another user")
        return self.users.setdefault(user, MemoryEngine())

    async def sync(self) -> None:
        self.syncs += 1
        if self.sync_error is not None:
            raise self.sync_error
