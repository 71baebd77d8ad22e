"""The named hooks of the core: what a feature may do at which moment of a container's life.

A feature registers a function for a point (:class:`jaula.feature.Hook`). The core calls it only if
the request of the container asks for the feature, or if the feature is always needed. Each method
of :class:`Hooks` is a point; its docstring is the contract. The functions are called in the order
of the table of features. ``tests/unit/engine/test_hooks.py`` calls each registered one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jaula.engine.model.services import Services
    from jaula.feature import Feature, Hook
    from jaula.runtime.protocol import StartRequest
    from jaula.spec.api import ContainerCreate, HostConfig
    from jaula.spec.rootfs import RootSource
    from jaula.spec.runtime import Spec
    from jaula.state.records import ContainerRecord, ResolvedRequest, StartIntent


class Hooks:
    """The registered functions by their points."""

    def __init__(self, features: Iterable[Feature] = ()) -> None:
        self._hooks: dict[str, list[tuple[Feature, Hook]]] = {}
        self._functions: dict[Hook, Callable[..., Any]] = {}
        for feature in features:
            for hook in feature.hooks:
                self._hooks.setdefault(hook.point, []).append((feature, hook))

    def _registered(
        self, point: str, host: HostConfig | None = None
    ) -> Iterable[Callable[..., Any]]:
        hooks = self._hooks.get(point)
        if hooks is None:
            return ()
        return [
            self._function(feature, hook)
            for feature, hook in hooks
            if hook.asks is None or host is None or hook.asks(host)
        ]

    def _function(self, feature: Feature, hook: Hook) -> Callable[..., Any]:
        if hook not in self._functions:
            self._functions[hook] = feature.function(hook.function)
        return self._functions[hook]

    # -- a container ---------------------------------------------------------------------------

    def request_resolved(
        self, services: Services, body: ContainerCreate, resolved: ResolvedRequest
    ) -> None:
        """Check a resolved request before anything is stored.

        :raises InvalidRequest: when the feature cannot serve it on this host.
        """
        for call in self._registered("request_resolved", body.host_config):
            call(services, body, resolved)

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
        """Wait for what still uses the files of a container that is removed now.

        It is called in a thread, under the container's lock; the container does not run.

        :raises JaulaError: when the container cannot be removed; it is marked dead then.
        """
        for call in self._registered("before_removal", record.body.host_config):
            call(services, record)
