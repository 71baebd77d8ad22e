"""Clients that stop in the middle of a transfer, as many as the engine has threads in its pool."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine

POOL = min(32, (os.cpu_count() or 1) + 4)  # concurrent.futures.ThreadPoolExecutor

UPLOADS = {
    "load": "POST /images/load",
    "import": "POST /images/create?fromSrc=-&repo=slow",
    "build": "POST /build?t=slow",
}
DOWNLOADS = {
    "save": "GET /images/{image}/get",
    "export": "GET /containers/{container}/export",
    "cp": "GET /containers/{container}/archive?path=/bin",
}


def small_archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    return out.getvalue()


def begin(engine: PrivateEngine, line: str, body: bytes = b"") -> socket.socket:
    """Send a request with one part of its body, and wait until the engine works on it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(engine.socket))
    size = f"Content-Length: {1 << 30}\r\n" if body else ""
    sock.sendall(f"{line} HTTP/1.1\r\nHost: x\r\n{size}\r\n".encode() + body)
    if not body:
        sock.settimeout(30)
        assert sock.recv(15).startswith(b"HTTP/1.1 200")
    return sock


@pytest.mark.parametrize("kind", [*UPLOADS, *DOWNLOADS])
def test_slow_transfers_do_not_stop_other_requests(
    engine: PrivateEngine, busybox: str, busybox_archive: Path, kind: str
) -> None:
    half = busybox_archive.read_bytes()[:1_000_000]
    with containers.running(engine, busybox) as name:
        line = (UPLOADS | DOWNLOADS)[kind].format(image=busybox, container=name)
        body = half if kind in UPLOADS else b""
        slow = [begin(engine, line, body) for _ in range(POOL)]
        try:
            assert engine.request("GET", "/system/df", timeout=20).status == 200
            path = f"/containers/{name}/archive?path=/tmp"
            assert engine.request("PUT", path, small_archive(), timeout=20).status == 200
            assert engine.request("GET", f"{path}/file", timeout=20).status == 200
            other = containers.unique()
            made = engine.cli("jaula", "create", "--name", other, busybox)
            assert made.returncode == 0, made.stderr
            removed = engine.request("DELETE", f"/containers/{other}?v=1", timeout=20)
            assert removed.status == 204
        finally:
            for sock in slow:
                sock.close()
