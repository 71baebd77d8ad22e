"""Traces by OpenTelemetry's SDK, if the environment asks for them.

The variables are those of the SDK. ``OTEL_TRACES_EXPORTER=otlp`` or an endpoint turns traces on;
``OTEL_SDK_DISABLED=true`` and ``OTEL_TRACES_EXPORTER=none`` turn them off. The SDK reads the others
(sampler, limits, headers, certificates). It is loaded here only, and a thread of its own exports.

Source: OpenTelemetry specification, "Environment Variable Specification" and "OTLP Exporter
Configuration"; W3C Trace Context; semantic conventions for HTTP.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from jaula import __version__, extras, spans

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span
    from opentelemetry.trace.status import Status

_log = logging.getLogger("jaula.traces")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP, GRPC = "http/protobuf", "grpc"
_EXTRAS = {HTTP: "otel", GRPC: "otel-grpc"}
_PROPAGATED = ("traceparent", "tracestate")
_MAX_MESSAGE = 256  # characters of an error in a span


class SdkBackend:
    """Spans of the SDK, as :class:`jaula.spans.TraceBackend`."""

    def __init__(self, identity: str, hostname: str, protocol: str) -> None:
        """Load the SDK and start its exporter of a protocol.

        :raises ImportError: when the packages of the extra are not installed.
        """
        if sys.modules.get("typing_extensions", self) is None:
            del sys.modules["typing_extensions"]  # the engine hides it from msgspec
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        from opentelemetry.trace.status import Status as StatusType
        from opentelemetry.trace.status import StatusCode

        own = {
            "service.name": "jaula",
            "service.version": __version__,
            "service.instance.id": identity,
            "host.name": hostname,
        }
        # Those of the environment win over these.
        resource = Resource(own).merge(Resource.create())
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "jaula"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(protocol)))
        self._tracer = self._provider.get_tracer("jaula", __version__)
        self._extract = TraceContextTextMapPropagator().extract
        self._in_context = set_span_in_context
        self._server = SpanKind.SERVER
        self._status, self._error_code = StatusType, StatusCode.ERROR

    def start(
        self,
        name: str,
        parent: spans.OpenSpan | None,
        attributes: Mapping[str, spans.Attribute],
    ) -> SdkSpan:
        """Start a span below another one."""
        context: Context | None = None
        if isinstance(parent, SdkSpan):
            context = self._in_context(parent.span)
        return SdkSpan(self._tracer.start_span(name, context, attributes=attributes), self)

    def start_request(
        self,
        name: str,
        headers: Mapping[bytes, bytes],
        attributes: Mapping[str, spans.Attribute],
    ) -> SdkSpan:
        """Start the span of a request, below that of the client if it names a valid one."""
        carrier = {
            key: headers[key.encode()].decode("latin-1")
            for key in _PROPAGATED
            if key.encode() in headers
        }
        context = self._extract(carrier)
        span = self._tracer.start_span(name, context, kind=self._server, attributes=attributes)
        return SdkSpan(span, self)

    def failed(self, error: BaseException) -> Status:
        """Return the status of a span that ended with an error."""
        return self._status(self._error_code, (str(error) or type(error).__name__)[:_MAX_MESSAGE])

    def shutdown(self) -> None:
        """Export what is left. It blocks for the timeout of the exporter."""
        self._provider.shutdown()


def _exporter(protocol: str) -> SpanExporter:
    if protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
            OTLPSpanExporter as GrpcSpanExporter,
        )

        return GrpcSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


class SdkSpan:
    """One span of the SDK."""

    __slots__ = ("_backend", "span")

    def __init__(self, span: Span, backend: SdkBackend) -> None:
        self.span = span
        self._backend = backend

    def set(self, name: str, value: spans.Attribute) -> None:
        """Set an attribute."""
        self.span.set_attribute(name, value)

    def end(self, error: BaseException | None) -> None:
        """End the span, with the error that ended its block."""
        if error is not None:
            self.span.set_attribute("error.type", type(error).__name__)
            self.span.set_status(self._backend.failed(error))
        self.span.end()


def requested(environment: Mapping[str, str]) -> bool:
    """Return whether the environment asks for traces. Pure."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter != "none"
    return any(environment.get(name) for name in _ENDPOINTS)


def protocol_of(environment: Mapping[str, str]) -> str:
    """Return the protocol of an environment; the variable of traces wins. Pure."""
    values = (environment.get(name, "").strip().lower() for name in _PROTOCOLS)
    return next(filter(None, values), HTTP)


def unsupported(environment: Mapping[str, str]) -> str:
    """Return why the request of an environment cannot be met; '' if it can. Pure."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter not in ("", "otlp"):
        return f"OTEL_TRACES_EXPORTER {exporter[:40]!r} must be otlp or none"
    protocol = protocol_of(environment)
    if protocol not in _EXTRAS:
        return f"the OTLP protocol {protocol[:40]!r} must be {' or '.join(_EXTRAS)}"
    return ""


def start(environment: Mapping[str, str], identity: str, hostname: str) -> SdkBackend | None:
    """Export traces from now on, if the environment asks for it; None if it is not possible.

    The engine runs without them then, and its log says why.
    """
    if reason := unsupported(environment):
        _log.error("traces are not exported: %s", reason)
        return None
    protocol = protocol_of(environment)
    try:
        backend = SdkBackend(identity, hostname, protocol)
    except ImportError as error:
        _log.error(
            "traces are not exported by %s, since a package is missing (%s): %s",
            *(protocol, error, extras.instruction(_EXTRAS[protocol])),
        )
        return None
    except ValueError as error:
        _log.error("traces are not exported: a variable OTEL_* is not valid: %s", error)
        return None
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    spans.set_backend(backend)
    _log.info("traces are exported by OTLP, %s", protocol)
    return backend
