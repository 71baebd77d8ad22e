"""When traces are exported: the variables of OpenTelemetry's SDK."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from jaula import extras, spans
from jaula.daemon import traces

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://h/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "1"}, True),  # only "true" is true
    ],
)
def test_the_environment_decides(environment: dict[str, str], expected: bool) -> None:
    assert traces.requested(environment) is expected


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "'zipkin' must be otlp or none"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "'http/json' must be http/"),
        (
            {
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "thrift",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            "'thrift' must be http/protobuf or grpc",
        ),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ""),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ""),
        (ENDPOINT, ""),
    ],
)
def test_what_cannot_be_exported_is_said_once(
    environment: dict[str, str], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert text in traces.unsupported(environment)
    if text:
        assert traces.start(environment, "id", "host") is None
        assert text in caplog.text
        assert not spans.enabled()


def test_a_missing_package_is_an_error_of_the_log_and_not_of_the_engine(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert traces.start(ENDPOINT, "id", "host") is None
    assert extras.instruction("otel") in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_grpc_without_its_extra_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    environment = {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert traces.start(environment, "id", "host") is None
    assert "by grpc" in caplog.text
    assert extras.instruction("otel-grpc") in caplog.text
    assert not spans.enabled()


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({}, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": " GRPC "}, "grpc"),
        (
            {
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            "http/protobuf",
        ),
    ],
)
def test_the_protocol_of_traces_wins(environment: dict[str, str], protocol: str) -> None:
    assert traces.protocol_of(environment) == protocol


def test_nothing_of_opentelemetry_is_loaded_by_an_engine_without_traces() -> None:
    program = (
        "import sys\n"
        "import jaula.daemon.serve, jaula.daemon.reload, jaula.engine.authz.gateway\n"
        "import jaula.api.http.api_server, jaula.engine.engine\n"
        "print(*(n for n in sys.modules if n.startswith(('opentelemetry', 'prometheus',"
        " 'jaula.daemon.traces', 'jaula.features.metrics.verification',"
        " 'jaula.features.metrics.l', 'jaula.features.metrics.s'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
