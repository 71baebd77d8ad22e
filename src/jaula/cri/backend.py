"""The interface of the engine for CRI: its permission-checked facade.

The facade of a connection implements these protocols structurally, as it does those of
:mod:`jaula.api.backend`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    import socket

    from jaula.engine.images.service import StoredImage
    from jaula.engine.pods.exec_sync import ExecResult
    from jaula.engine.pods.stats import ContainerUsage, SandboxUsage
    from jaula.engine.system.disk_usage import StorageUsage
    from jaula.network.cni.conf_monitor import NetworkState
    from jaula.spec.api import ContainerUpdate, ExecCreate, RegistryAuth
    from jaula.spec.api_params import AttachOptions
    from jaula.spec.image import Platform
    from jaula.spec.pod import PodContainerRequest, PodSandboxRequest, RuntimeHandler
    from jaula.state.records import ContainerRecord

Document = dict[str, Any]


class Access(Protocol):
    """The checks before a request is read."""

    def require_access(self, request: str) -> None: ...


class Pods(Protocol):
    """Pods and their containers."""

    async def runtime_handlers(self) -> tuple[RuntimeHandler, ...]: ...
    def network_state(self) -> NetworkState: ...
    async def run(self, request: PodSandboxRequest) -> str: ...
    async def stop(self, ref: str) -> None: ...
    async def remove(self, ref: str) -> None: ...
    def sandbox(self, ref: str) -> ContainerRecord: ...
    def sandboxes(self) -> list[ContainerRecord]: ...
    async def create_container(self, request: PodContainerRequest) -> str: ...
    async def start_container(self, ref: str) -> None: ...
    async def stop_container(self, ref: str, seconds: int) -> None: ...
    async def reopen_log(self, ref: str) -> None: ...
    async def remove_container(self, ref: str) -> None: ...
    def container(self, ref: str) -> ContainerRecord: ...
    def containers(self) -> list[ContainerRecord]: ...
    async def connect(self, ref: str, port: int) -> socket.socket: ...
    async def sandbox_usage(self, ref: str) -> SandboxUsage: ...
    async def usage(self, ref: str) -> ContainerUsage: ...
    async def exec_sync(
        self, ref: str, command: tuple[str, ...], seconds: float | None
    ) -> ExecResult: ...


class Containers(Protocol):
    """Containers of every kind."""

    async def update(self, ref: str, body: ContainerUpdate) -> Sequence[str]: ...
    async def attach(self, ref: str, fd: int, options: AttachOptions) -> None: ...
    async def resize(self, ref: str, h: int, w: int) -> None: ...


class Execs(Protocol):
    """Commands in running containers."""

    async def create(self, ref: str, body: ExecCreate) -> str: ...
    def exit_future(self, exec_id: str) -> asyncio.Future[int]: ...
    async def start(
        self,
        exec_id: str,
        fd: int | None,
        early: bytes,
        detach: bool,
        tty: bool,
        console: tuple[int, int] | None,
    ) -> None: ...
    async def resize(self, exec_id: str, h: int, w: int) -> None: ...


class Images(Protocol):
    """Images in the store. A reference is a name, an id or a unique id prefix."""

    async def stored(self) -> Sequence[StoredImage]: ...
    async def find_stored(self, ref: str) -> StoredImage: ...
    async def configuration(self, ref: str) -> bytes: ...
    async def remove(
        self,
        ref: str,
        *,
        force: bool,
        noprune: bool,
        platforms: Sequence[Platform],
        all_names: bool,
    ) -> list[Document]: ...


class Registry(Protocol):
    """Registries."""

    def pull(
        self, name: str, tag: str, platform: str | None, auth: RegistryAuth | None
    ) -> AsyncIterator[Document]: ...


class System(Protocol):
    """The engine as a whole."""

    async def storage(self) -> StorageUsage: ...
    def events(
        self, since: float | None, until: float | None, filters: dict[str, list[str]]
    ) -> AsyncIterator[Document]: ...


class Backend(Protocol):
    """The functions of the engine that the services call."""

    @property
    def access(self) -> Access: ...
    @property
    def pods(self) -> Pods: ...
    @property
    def execs(self) -> Execs: ...
    @property
    def containers(self) -> Containers: ...
    @property
    def images(self) -> Images: ...
    @property
    def distribution(self) -> Registry: ...
    @property
    def system(self) -> System: ...
