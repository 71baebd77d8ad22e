"""Spans of the engine's work. They cost nothing unless traces are exported.

:func:`span` marks the work of a block. Without a backend it returns one shared object that does
nothing. :mod:`jaula.daemon.traces` sets the backend, with OpenTelemetry's SDK behind it, if the
environment asks for it.

A block may be a part of an asynchronous generator, whose steps can run in several contexts. So the
present span is a value that is set back at the end, and not a token of the context variable, which
is valid in one context only.

Source: OpenTelemetry specification, "Tracing API"; W3C Trace Context.
"""

from __future__ import annotations

from contextvars import ContextVar, copy_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Protocol, TypeVar

    Result = TypeVar("Result")
    Attribute = str | int | float | bool

    class OpenSpan(Protocol):
        """A span of the backend that has not ended."""

        def set(self, name: str, value: Attribute) -> None: ...
        def end(self, error: BaseException | None) -> None: ...

    class TraceBackend(Protocol):
        """Creates spans and exports them. No method waits."""

        def start(
            self, name: str, parent: OpenSpan | None, attributes: Mapping[str, Attribute]
        ) -> OpenSpan: ...

        def start_request(
            self, name: str, headers: Mapping[bytes, bytes], attributes: Mapping[str, Attribute]
        ) -> OpenSpan:
            """Start the span of a request, whose parent may be named by ``traceparent``."""
            ...


_current: ContextVar[OpenSpan | None] = ContextVar("jaula span", default=None)
_backend: TraceBackend | None = None


class NoSpan:
    """A block that is not traced."""

    __slots__ = ()

    def __enter__(self) -> NoSpan:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def set(self, name: str, value: Attribute) -> None:
        """Ignore an attribute."""


class Span:
    """A block that is traced."""

    __slots__ = ("_before", "_open")

    def __init__(self, opened: OpenSpan) -> None:
        self._open = opened
        self._before: OpenSpan | None = None

    def __enter__(self) -> Span:
        self._before = _current.get()
        _current.set(self._open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _current.set(self._before)
        self._open.end(error)

    def set(self, name: str, value: Attribute) -> None:
        """Set an attribute of the span."""
        self._open.set(name, value)


NO_SPAN = NoSpan()
"""The span of everything while traces are off."""


def set_backend(backend: TraceBackend | None) -> None:
    """Export spans from now on, or no more."""
    global _backend
    _backend = backend


def span(name: str, attributes: Mapping[str, Attribute] | None = None) -> Span | NoSpan:
    """Return the span of a block, below the present one."""
    if _backend is None:
        return NO_SPAN
    return Span(_backend.start(name, _current.get(), attributes or {}))


def request_span(
    name: str, headers: Mapping[bytes, bytes], attributes: Mapping[str, Attribute]
) -> Span | NoSpan:
    """Return the span of a request with these headers."""
    if _backend is None:
        return NO_SPAN
    return Span(_backend.start_request(name, headers, attributes))


def enabled() -> bool:
    """Return whether spans are exported."""
    return _backend is not None


def in_context(work: Callable[[], Result]) -> Callable[[], Result]:
    """Return ``work`` for another thread, where its spans are below the present one."""
    if _backend is None:
        return work
    context = copy_context()
    return lambda: context.run(work)
