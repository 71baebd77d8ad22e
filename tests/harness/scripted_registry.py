"""A registry that does as a test tells it: honest, or hostile where an answer is replaced."""

from __future__ import annotations

import hashlib
import io
import json
import ssl
import tarfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

Script = Callable[["Request"], None]


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(text: str = "hello", size: int = 0) -> bytes:
    """A layer with a small file, and one of ``size`` bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("etc/note", text.encode()), ("big", b"x" * size)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def described(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def config_of(*layers: bytes, **more: Any) -> bytes:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in layers]},
    }
    return json.dumps(document | more).encode()


class Request(BaseHTTPRequestHandler):
    """One request; ``answer`` sends a whole reply."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def answer(
        self, status: int, body: bytes = b"", content_type: str = "application/json", **headers: str
    ) -> None:
        self.head(status, content_type, **{"Content_Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self.wfile.write(body)

    def head(self, status: int, content_type: str = "", **headers: str) -> None:
        self.send_response(status)
        if content_type:
            self.send_header("Content-Type", content_type)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def hang_up(self) -> None:
        """End the connection in the middle of an answer."""
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return  # the client had enough of it

    def _any(self) -> None:
        registry: ScriptedRegistry = self.server.registry
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size)
        registry.seen.append(
            (self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        )
        path = self.path.partition("?")[0]
        script = registry.scripts.get(f"{self.command} {path}") or registry.scripts.get(path)
        (script or registry.honest)(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any

    def log_message(self, *_: object) -> None:
        return


class ScriptedRegistry:
    """Serves the image ``box:1``. ``scripts`` replaces answers by path, or by method and path."""

    def __init__(
        self,
        *layers: bytes,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        layer_type: str = LAYER,
        config: bytes | None = None,
    ) -> None:
        self.layers = layers or (layer(),)
        self.config = config_of(*self.layers) if config is None else config
        self.blobs = {digest(data): data for data in (self.config, *self.layers)}
        self.manifest_document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(self.config, CONFIG),
            "layers": [described(data, layer_type) for data in self.layers],
        }
        self.scripts: dict[str, Script] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self._server = ThreadingHTTPServer((host, 0), Request)
        self._server.daemon_threads = True
        self._server.registry = self  # type: ignore[attr-defined]
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.host = host
        self.port = self._server.server_address[1]
        self.name = f"{host}:{self.port}"
        self.url = ("http" if tls is None else "https") + f"://{self.name}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> ScriptedRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def manifest(self) -> bytes:
        return json.dumps(self.manifest_document).encode()

    def blob_path(self, data: bytes) -> str:
        return f"/v2/box/blobs/{digest(data)}"

    @property
    def manifest_path(self) -> str:
        return "/v2/box/manifests/1"

    def send_manifest(self, data: bytes, content_type: str = MANIFEST, **headers: str) -> None:
        """Answer with these bytes when asked for ``box:1``."""
        self.scripts[self.manifest_path] = lambda request: request.answer(
            200, data, content_type, **headers
        )

    def asked(self, needle: str) -> list[dict[str, str]]:
        """Headers of the requests whose path holds ``needle``."""
        return [headers for _, path, headers in self.seen if needle in path]

    def honest(self, request: Request) -> None:
        path = request.path.partition("?")[0]
        if path == "/v2/":
            request.answer(200, b"{}")
        elif path in (self.manifest_path, f"/v2/box/manifests/{digest(self.manifest)}"):
            request.answer(
                200, self.manifest, MANIFEST, Docker_Content_Digest=digest(self.manifest)
            )
        elif path.startswith("/v2/box/blobs/sha256:") and path[14:] in self.blobs:
            data = self.blobs[path[14:]]
            expected = request.headers.get("Range")
            if expected:
                first, _, last = expected.removeprefix("bytes=").partition("-")
                start, end = int(first), int(last) + 1 if last else len(data)
                span = f"bytes {start}-{end - 1}/{len(data)}"
                request.answer(206, data[start:end], "application/octet-stream", Content_Range=span)
            else:
                request.answer(200, data, "application/octet-stream")
        else:
            code = "MANIFEST_UNKNOWN" if "/manifests/" in path else "BLOB_UNKNOWN"
            message = {"code": code, "message": code.lower().replace("_", " ")}
            request.answer(404, json.dumps({"errors": [message]}).encode())


def endless(chunk: bytes, *, pause: float = 0.0, content_type: str = MANIFEST) -> Script:
    """A body without end."""

    def script(request: Request) -> None:
        request.head(200, content_type, Transfer_Encoding="chunked")
        while True:
            request.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            request.wfile.flush()
            time.sleep(pause)

    return script
