"""A lazy server beside a registry that is killed or stopped while it sends a part of a blob."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness import containers
from harness.engine import SLOW
from harness.scripted_registry import digest
from jaula.config import RegistryConfig
from jaula.errors import JaulaError
from jaula.features.lazy import lazy_server
from jaula.features.lazy.blob import LazyBlob
from jaula.features.lazy.lazy_protocol import Request
from jaula.images.reference import parse
from jaula.images.registry.auth.token import Credentials
from jaula.images.registry.registry_hosts import Hosts
from jaula.spec.image_documents import Descriptor

PROGRAM = """
import re, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

blob = open(sys.argv[2], "rb").read()

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        first, last = map(int, re.findall(r"[0-9]+", self.headers.get("Range") or "bytes=0-1"))
        self.send_response(206 if "/blobs/" in self.path else 200)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(blob)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        for begin in range(first, last + 1, 1 << 14):
            self.wfile.write(blob[begin : min(begin + (1 << 14), last + 1)])
            time.sleep(float(sys.argv[3]))

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
BLOB = random.Random("blob").randbytes(1 << 20)
DESCRIPTOR = Descriptor("application/octet-stream", digest(BLOB), len(BLOB))
PIECE_PAUSE = 0.02  # seconds: the whole blob takes more than a second
ATTEMPT = lazy_server._TIMEOUTS.stall + lazy_server._TIMEOUTS.pause  # seconds
LIMIT = SLOW * lazy_server._TIMEOUTS.attempts * (ATTEMPT + 4)  # seconds


class RegistryProcess:
    """A registry that is a process, always at the same port."""

    def __init__(self, directory: Path) -> None:
        self._blob = directory / "served"
        self._blob.write_bytes(BLOB)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        words = (str(self.port), str(self._blob), str(PIECE_PAUSE))
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words], stderr=subprocess.DEVNULL
        )
        containers.eventually(self._listens, "the registry listens", 30)

    def _listens(self) -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def come_back(self, number: signal.Signals) -> None:
        """End what the signal has done."""
        if number == signal.SIGSTOP:
            self.process.send_signal(signal.SIGCONT)
        else:
            self.process.wait()
            self.start()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[RegistryProcess]:
    made = RegistryProcess(tmp_path)
    yield made
    made.end()


@pytest.fixture
def registry(process: RegistryProcess) -> Iterator[lazy_server.Registry]:
    reference = parse(f"127.0.0.1:{process.port}/box")
    config = RegistryConfig()
    endpoints = Hosts(config).endpoints(reference.domain)
    made = lazy_server.Registry(Request("box", reference, config, Credentials(), (), endpoints))
    yield made
    made.cancel.cancel()


class Work:
    """A call in a thread, with its result or its error."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.result: object = None
        self.error: JaulaError | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except JaulaError as error:
            self.error = error

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def end(self, seconds: float) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive()


NUMBERS = [signal.SIGKILL, signal.SIGSTOP]


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_the_wait_for_a_part_ends_without_the_registry(
    process: RegistryProcess, registry: lazy_server.Registry, number: signal.Signals
) -> None:
    received = bytearray()
    work = Work(lambda: registry.stream(DESCRIPTOR.digest, 0, len(BLOB), received.extend))
    containers.eventually(lambda: bool(received), "it has begun", 30)
    process.process.send_signal(number)
    work.end(LIMIT)
    assert work.error is not None
    assert lazy_server.is_temporary(work.error)
    assert BLOB.startswith(received)
    assert len(received) < len(BLOB)


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_a_read_goes_on_where_it_was_when_the_registry_is_back(
    process: RegistryProcess, registry: lazy_server.Registry, number: signal.Signals
) -> None:
    checks: list[float] = []
    work = Work(
        lambda: registry.fetch(
            DESCRIPTOR.digest,
            0,
            len(BLOB),
            patience=60.0 * SLOW,
            check=lambda: checks.append(time.monotonic()),
        )
    )
    time.sleep(10 * PIECE_PAUSE)
    process.process.send_signal(number)
    containers.eventually(lambda: bool(checks), "an attempt has failed", LIMIT)
    assert work.is_running
    process.come_back(number)
    work.end(LIMIT)
    assert work.error is None
    assert work.result == BLOB


@pytest.mark.parametrize("number", NUMBERS)
def test_a_read_ends_when_its_patience_does(
    process: RegistryProcess, registry: lazy_server.Registry, number: signal.Signals
) -> None:
    assert lazy_server.READ_PATIENCE == 180.0
    process.process.send_signal(number)
    work = Work(lambda: registry.fetch(DESCRIPTOR.digest, 0, len(BLOB), patience=1.0))
    work.end(2 * LIMIT)
    assert work.error is not None


@pytest.fixture
def background(
    tmp_path: Path, registry: lazy_server.Registry
) -> Iterator[tuple[LazyBlob, Callable[[], None]]]:
    """Yield a blob without contents, and what fetches it in the background."""
    file = os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(file, len(BLOB))

    def refuse(_begin: int, _length: int) -> bytes:
        raise AssertionError("no program reads")

    blob = LazyBlob(file, len(BLOB), (), refuse, lambda _path, _reason: None)
    lazy = lazy_server.LazyServer.__new__(lazy_server.LazyServer)
    lazy._registry = registry
    layer = lazy_server.Layer(DESCRIPTOR, "name")
    yield blob, lambda: lazy._fetch_range(layer, blob, len(BLOB))
    os.close(file)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_background_goes_on_when_the_registry_is_back(
    process: RegistryProcess,
    background: tuple[LazyBlob, Callable[[], None]],
    number: signal.Signals,
) -> None:
    blob, fetch = background
    work = Work(fetch)
    containers.eventually(lambda: blob.missing() < len(BLOB), "it has begun", 30)
    process.process.send_signal(number)
    time.sleep(1.0)
    assert work.is_running
    process.come_back(number)
    work.end(2 * LIMIT)
    assert work.error is None
    assert blob.digest() == DESCRIPTOR.digest


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_the_background_gives_up_when_its_patience_ends(
    monkeypatch: pytest.MonkeyPatch,
    process: RegistryProcess,
    background: tuple[LazyBlob, Callable[[], None]],
    number: signal.Signals,
) -> None:
    assert (lazy_server._PATIENCE, lazy_server._LEAST_RATE) == (600.0, 16 << 10)

    class Impatient(lazy_server.LeastRate):
        def __init__(self, now: float) -> None:
            super().__init__(now, window=0.5, patience=2.0)

    monkeypatch.setattr(lazy_server, "LeastRate", Impatient)
    blob, fetch = background
    work = Work(fetch)
    containers.eventually(lambda: blob.missing() < len(BLOB), "it has begun", 30)
    process.process.send_signal(number)
    work.end(3 * LIMIT)
    assert work.error is not None
    assert 0 < blob.missing() < len(BLOB)
