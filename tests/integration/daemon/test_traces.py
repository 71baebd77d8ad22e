"""Traces of a real engine, received by a collector of the test as protobuf of OTLP."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.registry import Registry

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """A server of OTLP over HTTP that keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resource: dict[str, str] = {}
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    data = gzip.decompress(data)
                collector.add(ExportTraceServiceRequest.FromString(data))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Print nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, request: Any) -> None:
        for resource_spans in request.resource_spans:
            for pair in resource_spans.resource.attributes:
                self.resource[pair.key] = pair.value.string_value
            for scope in resource_spans.scope_spans:
                self.spans += scope.spans

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def named(self, name: str, seconds: float = 20.0) -> list[Any]:
        """Return the spans of a name; wait for the first one."""
        deadline = time.monotonic() + seconds
        while not (found := [span for span in self.spans if span.name == name]):
            assert time.monotonic() < deadline, sorted({span.name for span in self.spans})
            time.sleep(0.05)
        return found


class GrpcCollector(Collector):
    """A server of OTLP over gRPC that keeps the spans."""

    def __init__(self) -> None:
        self.spans, self.resource = [], {}
        self._grpc = grpc.server(ThreadPoolExecutor(1))

        def export(request: ExportTraceServiceRequest, context: object) -> bytes:
            self.add(request)
            return b""

        handler = grpc.unary_unary_rpc_method_handler(
            export, request_deserializer=ExportTraceServiceRequest.FromString
        )
        name = "opentelemetry.proto.collector.trace.v1.TraceService"
        service = grpc.method_handlers_generic_handler(name, {"Export": handler})
        self._grpc.add_generic_rpc_handlers((service,))
        self.address = f"http://127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        self._grpc.start()

    def close(self) -> None:
        self._grpc.stop(None).wait()


def attributes(span: Any) -> dict[str, Any]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes
    }


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def traced(worker_index: int, collector: Collector) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 88) % 250 + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds
        with leaks.nothing_left(private):
            load_image(private, "busybox")
            yield private


def test_a_start_continues_the_trace_of_its_client(
    traced: PrivateEngine, collector: Collector
) -> None:
    created = traced.cli("jaula", "create", "--name", "web", "busybox", "sleep", "100")
    assert created.returncode == 0, created.stderr
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert traced.request("POST", "/containers/web/start", headers=headers).status == 204
    (request,) = collector.named("POST /containers/{id}/start")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert request.kind == 2  # SPAN_KIND_SERVER
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/containers/{id}/start",
        "url.path": "/containers/web/start",
        "user.id": "0",
        "http.response.status_code": 204,
    }
    (action,) = collector.named("container start")
    assert action.parent_span_id == request.span_id
    assert attributes(action)["container.name"] == "web"
    for phase in ("sandbox", "spec", "record", "runtime"):
        (span,) = collector.named(f"start {phase}")
        assert (span.trace_id, span.parent_span_id) == (action.trace_id, action.span_id)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert action.start_time_unix_nano <= span.start_time_unix_nano
    assert collector.resource["service.name"] == "jaula"
    assert collector.resource["service.version"]


@pytest.mark.parametrize(
    "header", ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "x" * 5000, "00-é"]
)
def test_a_malformed_traceparent_begins_a_trace(
    traced: PrivateEngine, collector: Collector, header: str
) -> None:
    before = len([span for span in collector.spans if span.name == "GET /version"])
    reply = traced.request(
        "GET", "/version", headers={"traceparent": header.encode("latin-1").decode("latin-1")}
    )
    assert reply.status == 200
    deadline = time.monotonic() + 20
    while len(found := [s for s in collector.spans if s.name == "GET /version"]) == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not found[-1].parent_span_id
    assert found[-1].trace_id.hex() not in ("0" * 32, TRACE)


def test_a_failed_action_has_the_error(traced: PrivateEngine, collector: Collector) -> None:
    assert traced.request("POST", "/containers/nothing/stop").status == 404
    (span,) = collector.named("container stop")
    assert span.status.code == 2  # STATUS_CODE_ERROR
    assert span.status.message == "No such container: nothing"
    assert attributes(span)["error.type"] == "NotFound"


def test_builds_have_a_span_for_each_step_without_its_text(
    traced: PrivateEngine, collector: Collector, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nENV TOKEN=secret-4711\nRUN true\n")
    built = traced.cli("jaula", "build", "-q", str(tmp_path))
    assert built.returncode == 0, built.stderr
    (build,) = collector.named("image build")
    for name in ("build FROM", "build ENV", "build RUN"):
        (step,) = collector.named(name)
        assert step.parent_span_id == build.span_id
    assert "secret-4711" not in str(collector.spans)


def test_exec_has_a_span_of_the_runtime(traced: PrivateEngine, collector: Collector) -> None:
    words = ("run", "-d", "--name", "executed", "busybox", "sleep", "600")
    assert traced.cli("jaula", *words).returncode == 0
    assert traced.cli("jaula", "exec", "executed", "true").returncode == 0
    assert traced.cli("jaula", "rm", "-f", "executed").returncode == 0  # a pull needs its layers
    (action,) = collector.named("exec start")
    (runtime,) = collector.named("exec runtime")
    assert runtime.parent_span_id == action.span_id


def test_a_pull_has_spans_of_its_layers(
    traced: PrivateEngine, collector: Collector, tmp_path: Path
) -> None:
    with Registry(tmp_path) as registry:
        name = f"{registry.name}/traced:1"
        for words in (("tag", "busybox", name), ("push", "-q", name), ("rmi", name)):
            done = traced.cli("jaula", *words)
            assert done.returncode == 0, (words, done.stderr)
        traced.cli("jaula", "rm", "-f", "web")
        assert traced.cli("jaula", "rmi", "-f", "busybox").returncode == 0
        traced.cli("jaula", "system", "prune", "-a", "-f")
        assert traced.cli("jaula", "pull", "-q", name).returncode == 0
    (pull,) = collector.named("image pull")
    assert attributes(pull)["engine.object"] == name
    for kind in ("layer download", "layer unpack"):
        layers = collector.named(kind)
        assert {span.trace_id for span in layers} == {pull.trace_id}
        assert all(attributes(span)["layer.digest"].startswith("sha256:") for span in layers)
    downloads = collector.named("layer download")
    assert {span.parent_span_id for span in downloads} == {pull.span_id}


@pytest.mark.slow
def test_a_collector_that_never_answers_delays_nothing(
    worker_index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
        private = PrivateEngine((worker_index + 89) % 250 + 1)
        with leaks.nothing_left(private):
            times = []
            for _ in range(300):  # more than the queue holds
                started = time.monotonic()
                assert private.request("GET", "/_ping").status == 200
                times.append(time.monotonic() - started)
            assert sorted(times)[len(times) // 2] < 0.1
            started = time.monotonic()
            with contextlib.suppress(OSError):
                assert private.stop() == 0
            assert time.monotonic() - started < 15
            private.start()


def test_the_protocol_of_the_environment_may_be_grpc(worker_index: int) -> None:
    private = PrivateEngine((worker_index + 145) % 250 + 1)
    if sys.modules.get("typing_extensions", grpc) is None:
        del sys.modules["typing_extensions"]  # the engine hides it, and grpc imports it
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(GrpcCollector()) as collector:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds
        with leaks.nothing_left(private):
            load_image(private, "busybox")
            done = private.cli("jaula", "run", "--rm", "--name", "web", "busybox", "true")
            assert done.returncode == 0, done.stderr
            (span,) = collector.named("container start")
            assert attributes(span)["container.name"] == "web"
            assert "traces are exported by OTLP, grpc" in private.log_tail()
        assert collector.resource["service.name"] == "jaula"
