"""The named hooks of the core: what a feature may do at which moment of a container's life.

A feature registers a function for a point (:class:`jaula.feature.Hook`). The core calls it only if
the request of the container asks for the feature, or if the feature is always needed. Each method
of :class:`Hooks` is a point; its docstring is the contract. The functions are called in the order
of the table of features. ``tests/unit/engine/test_hooks.py`` compares each
registered one with its point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from jaula.errors import InvalidRequest, NotAuthorized

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from jaula.config import EngineConfig
    from jaula.engine.authz.caller_session import Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.engine.authz.request_ceilings import Share
    from jaula.engine.containers.containers import Containers
    from jaula.engine.containers.restore_source import RestoreSource
    from jaula.engine.engine import Engine
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.feature import Feature, Hook
    from jaula.images.store.image_names import NameRights
    from jaula.runtime.shim_protocol import StartRequest
    from jaula.spec.api_documents import ContainerCreate
    from jaula.spec.api_params import Origin, Remote
    from jaula.spec.rootfs import RootSource
    from jaula.spec.runtime_spec import IDMapping, Spec
    from jaula.state.container_records import (
        ContainerRecord,
        MountRecord,
        ResolvedRequest,
        StartIntent,
    )
    from jaula.tls import TlsCodec

    BuildCacheUsage = Callable[[NameRights | None], list[dict[str, Any]]]
    TlsStream = Callable[[socket.socket, TlsCodec, Remote], Awaitable[None]]


class Closer(Protocol):
    """What a feature has opened for the life of an engine."""

    def close(self) -> Awaitable[None]: ...


class Opened(Protocol):
    """Sockets that a feature listens on; ``close`` removes their paths too."""

    def close(self) -> None: ...


class EngineStart(NamedTuple):
    """A running engine, for features that serve clients of their own.

    ``enter`` returns the engine as the caller of one connection has it. ``opened`` has what the
    features opened at ``listen``. ``listen_again`` is called with nothing when another program has
    removed the path of a unix socket; a feature adds its own.
    """

    engine: Engine
    enter: Callable[[Origin | None], EngineApi]
    opened: Mapping[str, Any]
    listen_again: dict[str, Callable[[], None]]


class Hooks:
    """The registered functions by their points."""

    def __init__(self, features: Iterable[Feature] = ()) -> None:
        self._hooks: dict[str, list[tuple[Feature, Hook]]] = {}
        self._functions: dict[Hook, Callable[..., Any]] = {}
        for feature in features:
            for hook in feature.hooks:
                self._hooks.setdefault(hook.point, []).append((feature, hook))

    def _registered(self, point: str, asked: object) -> Sequence[Callable[..., Any]]:
        """Return the functions for ``asked``: a ``HostConfig``, or the engine's settings."""
        hooks = self._hooks.get(point)
        if hooks is None:
            return ()
        return [
            self._function(feature, hook)
            for feature, hook in hooks
            if hook.asks is None or hook.asks(asked)
        ]

    def _function(self, feature: Feature, hook: Hook) -> Callable[..., Any]:
        if hook not in self._functions:
            self._functions[hook] = feature.function(hook.function)
        return self._functions[hook]

    # -- the engine ----------------------------------------------------------------------------

    def listen(self, config: EngineConfig) -> dict[str, Opened]:
        """Open the sockets of features, by their names, before any client can connect to one.

        :raises JaulaError: when one cannot be opened; those of other features are closed then.
        """
        opened: dict[str, Opened] = {}
        try:
            for call in self._registered("listen", config):
                name, found = call(config)
                opened[name] = found
        except BaseException:
            for each in opened.values():
                each.close()
            raise
        return opened

    async def restoring(self, engine: Engine) -> None:
        """Remove what a killed engine left, before its containers are restored."""
        for call in self._registered("restoring", engine.services.config):
            await call(engine)

    async def restored(self, engine: Engine) -> None:
        """Take over what a previous engine left, when its containers are restored.

        The claims of ids that no container has are removed next.

        :raises JaulaError: when the engine cannot start.
        """
        for call in self._registered("restored", engine.services.config):
            await call(engine)

    async def network_opened(self, engine: Engine) -> None:
        """Open networks beside those of the engine; its firewall rules are followed already.

        :raises JaulaError: when the engine cannot start.
        """
        for call in self._registered("network_opened", engine.services.config):
            await call(engine)

    async def engine_started(self, start: EngineStart) -> list[Closer]:
        """Start what runs beside an engine; return what is closed before it stops.

        It is called when the API is served and all containers are restored.
        """
        config = start.engine.services.config
        return [await call(start) for call in self._registered("engine_started", config)]

    async def engine_stopping(self, engine: Engine) -> None:
        """End what a feature has made in an engine; no request is served any more.

        The order is the reverse one, as a service may use those of features before it.
        """
        for call in reversed(self._registered("engine_stopping", engine.services.config)):
            await call(engine)

    def tls_streams(self, engine: Engine) -> dict[str, TlsStream]:
        """Return who takes the connections to the TLS sockets that are not HTTP, by protocol.

        The protocols are those that the feature names in ``tls_protocols`` (ALPN, RFC 7301).
        """
        streams: dict[str, TlsStream] = {}
        for call in self._registered("tls_streams", engine.services.config):
            streams |= call(engine)
        return streams

    def build_cache(self, engine: Engine) -> list[BuildCacheUsage]:
        """Return what returns Docker's documents of the build cache, for ``system df``.

        It is called in the event loop, and its results in a thread.
        """
        return [call(engine) for call in self._registered("build_cache", engine.services.config)]

    def user_named(self, session: Session, text: str) -> Origin:
        """Return the user for whom a caller speaks, from the header of a request.

        :raises NotAuthorized: when the caller may not speak for another user.
        :raises InvalidRequest: when the text is not valid.
        """
        for call in self._registered("user_named", None):
            origin: Origin = call(session, text)
            return origin
        raise NotAuthorized(
            "a request cannot be for another user", hint="the feature web is not installed"
        )

    def owned(self, services: Services, share: Share, owner: str) -> int:
        """Return how much of a share an owner has in the records of features."""
        return sum(call(services, share, owner) for call in self._registered("owned", None))

    # -- a container ---------------------------------------------------------------------------

    def request_authorized(
        self, session: Session, body: ContainerCreate, resolved: ResolvedRequest
    ) -> None:
        """Check that a caller may use what a request names.

        :raises NotAuthorized: when it may not.
        """
        for call in self._registered("request_authorized", body.host_config):
            call(session, body, resolved)

    def request_completed(
        self, services: Services, body: ContainerCreate, resolved: ResolvedRequest
    ) -> ContainerCreate:
        """Return the body of an authorised request with the ids of what it names, all checked.

        :raises InvalidRequest: when something does not exist or is not valid.
        """
        for call in self._registered("request_completed", body.host_config):
            body = call(services, body, resolved)
        return body

    def request_resolved(
        self, services: Services, body: ContainerCreate, resolved: ResolvedRequest
    ) -> None:
        """Check a resolved request before anything is stored.

        :raises InvalidRequest: when the feature cannot serve it on this host.
        """
        for call in self._registered("request_resolved", body.host_config):
            call(services, body, resolved)

    async def checkpoint_opened(
        self, containers: Containers, container: Container, name: str, directory: str
    ) -> RestoreSource:
        """Return the checkpoint that a start continues. It is called under the container's lock.

        :raises RuntimeFailure: when the checkpoint cannot be used.
        :raises InvalidRequest: when no feature has checkpoints.
        """
        for call in self._registered("checkpoint_opened", container.record):
            source: RestoreSource = await call(containers, container, name, directory)
            return source
        raise InvalidRequest(
            f"cannot start container {container.name} from a checkpoint",
            hint="the feature checkpoint is not installed",
        )

    async def start_requested(self, containers: Containers, container: Container) -> None:
        """Finish what a former operation has left, before the program of a container is started.

        It is called under the container's lock, and not for a start from a checkpoint. ``asks``
        gets the record.

        :raises JaulaError: when the container cannot be started.
        """
        for call in self._registered("start_requested", container.record):
            await call(containers, container)

    def mounts_added(
        self,
        services: Services,
        record: ContainerRecord,
        uids: tuple[IDMapping, ...],
        gids: tuple[IDMapping, ...],
    ) -> tuple[MountRecord, ...]:
        """Return mounts of a start beside those of the request.

        They are of files in the run directory of the container, which ``run_dir_removed`` undoes.

        :raises JaulaError: when they cannot be made.
        """
        added: tuple[MountRecord, ...] = ()
        for call in self._registered("mounts_added", record.body.host_config):
            added += call(services, record, uids, gids)
        return added

    def run_dir_removed(self, services: Services, record: ContainerRecord) -> None:
        """Unmount what ``mounts_added`` has mounted in the run directory; it is removed next."""
        for call in self._registered("run_dir_removed", record.body.host_config):
            call(services, record)

    def spec_built(
        self, services: Services, record: ContainerRecord, root: RootSource, spec: Spec
    ) -> Spec:
        """Return the spec of a start with the additions of features.

        It is called under the container's lock, before the spec is written and sealed. What a
        function makes on the disk is undone by ``start_failed``.
        """
        for call in self._registered("spec_built", record.body.host_config):
            spec = call(services, record, root, spec)
        return spec

    def before_start(
        self,
        services: Services,
        record: ContainerRecord,
        intent: StartIntent,
        request: StartRequest,
    ) -> tuple[StartIntent, StartRequest]:
        """Return what is recorded of a start, and what the runtime is asked for.

        It is called under the container's lock, before the intent is recorded. What a function
        makes on the disk is undone by ``start_failed``.

        :raises JaulaError: when the container cannot be started.
        """
        for call in self._registered("before_start", record.body.host_config):
            intent, request = call(services, record, intent, request)
        return intent, request

    def start_failed(self, services: Services, record: ContainerRecord) -> None:
        """Undo what ``spec_built`` has done: no process of the start is left."""
        for call in self._registered("start_failed", record.body.host_config):
            call(services, record)

    def before_removal(self, services: Services, record: ContainerRecord) -> None:
        """Remove the files that a feature has of a container; wait for what still uses others.

        It is called in a thread, under the container's lock; the container does not run.

        :raises JaulaError: when the container cannot be removed; it is marked dead then.
        """
        for call in self._registered("before_removal", record.body.host_config):
            call(services, record)

    def container_inspected(self, services: Services, record: ContainerRecord) -> dict[str, Any]:
        """Return further members of the document of a container. ``asks`` gets the record."""
        members: dict[str, Any] = {}
        for call in self._registered("container_inspected", record):
            members |= call(services, record)
        return members

    # -- a container of a killed engine --------------------------------------------------------

    async def processes_found(self, containers: Containers, container: Container) -> None:
        """Undo a change of a container that a killed engine has begun.

        It is called for each container when the shims of those that run have been asked, and before
        the exits meanwhile are recorded. The networks are restored. It is called again for one
        whose shim answers later. ``asks`` gets the record.
        """
        for call in self._registered("processes_found", container.record):
            await call(containers, container)

    async def exit_recorded(self, containers: Containers, container: Container) -> None:
        """Go on with an operation that a killed engine has begun and that ends the container.

        It is called for each container when all exits are recorded. Files without a record are
        removed next. ``asks`` gets the record.
        """
        for call in self._registered("exit_recorded", container.record):
            await call(containers, container)

    async def container_restored(self, containers: Containers, container: Container) -> bool:
        """Take over a container after the restart of an engine; return whether one does.

        The restart policy is not applied to it then. ``asks`` gets the record.
        """
        calls = self._registered("container_restored", container.record)
        for call in calls:
            await call(containers, container)
        return bool(calls)
