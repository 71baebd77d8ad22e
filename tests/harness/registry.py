"""Registries for tests: the distribution project's server, on a private loopback port."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PROGRAM = "docker-registry"
USER, PASSWORD = "maria", "s3cret word"
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Registry:
    """A server with storage below ``directory``. ``name`` is the domain of image names."""

    def __init__(
        self, directory: Path, *, tls: bool = False, auth: dict[str, Any] | None = None
    ) -> None:
        assert shutil.which(PROGRAM), f"{PROGRAM} is not installed: scripts/setup test"
        self.directory = directory
        self.port = free_port()
        self.name = f"127.0.0.1:{self.port}"
        self.tls = tls
        self.log = directory / "log"
        self._auth = auth or {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Registry:
        self.directory.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.directory / "data")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.name},
            "auth": self._auth,
        }
        if self.tls:
            settings["http"]["tls"] = {
                "certificate": str(self.directory / "server.crt"),
                "key": str(self.directory / "server.key"),
            }
        file = self.directory / "config.yml"
        file.write_text(json.dumps({k: v for k, v in settings.items() if v}))  # JSON is YAML
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "serve", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
            )
        deadline = time.monotonic() + 30
        while True:
            assert self._process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> Registry:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request of the test itself, with the test user's password."""
        sent = {"Accept": MANIFESTS, **(headers or {})}
        if "htpasswd" in self._auth:
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            sent["Authorization"] = f"Basic {pair}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        if self.tls:
            context = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=30, context=context
            )
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            lowered = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, lowered, answer.read()
        finally:
            connection.close()

    def manifest(self, name: str, reference: str) -> tuple[str, dict[str, Any]]:
        """Return digest and document of a tag."""
        status, headers, body = self.ask("GET", f"/v2/{name}/manifests/{reference}")
        assert status == 200, body
        return headers["docker-content-digest"], json.loads(body)

    def requests(self, needle: str) -> int:
        """Return the number of requests in the log that contain ``needle``."""
        time.sleep(0.1)
        return sum(needle in line for line in self.log.read_text().splitlines())


def basic_auth(directory: Path) -> dict[str, Any]:
    """Return the settings of a registry that requires a password."""
    directory.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["htpasswd", "-Bbn", USER, PASSWORD], capture_output=True, text=True, check=True
    )
    (directory / "htpasswd").write_text(done.stdout)
    return {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}


def make_certificates(directory: Path, *, rsa: bool = False) -> None:
    """Create a CA, ``ca.crt``, and its certificate for 127.0.0.1: ``server.crt`` and ``.key``."""
    directory.mkdir(parents=True, exist_ok=True)

    def openssl(*words: str) -> None:
        subprocess.run(
            ["openssl", *words], cwd=directory, check=True, capture_output=True, timeout=60
        )

    curve: tuple[str, ...] = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    if rsa:
        curve = ("-newkey", "rsa:2048", "-nodes")
    openssl(
        *("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt"),
        *("-days", "2", "-subj", "/CN=test authority"),
    )
    openssl(
        *("req", "-x509", *curve, "-keyout", "server.key", "-out", "server.crt"),
        *("-days", "2", "-subj", "/CN=127.0.0.1", "-CA", "ca.crt", "-CAkey", "ca.key"),
        *("-addext", "subjectAltName=IP:127.0.0.1"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
    )


class TokenServer:
    """Issues tokens for a registry with ``auth()``; ``seen`` contains its requests."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.seen: list[dict[str, Any]] = []
        make_certificates(directory / "signer", rsa=True)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                outer.answer(self, query)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                outer.answer(self, parse_qs(body))

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def auth(self) -> dict[str, Any]:
        return {
            "token": {
                "realm": f"http://127.0.0.1:{self.port}/token",
                "service": "test registry",
                "issuer": "test issuer",
                "rootcertbundle": str(self.directory / "signer" / "server.crt"),
            }
        }

    def answer(self, request: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        passed = request.headers.get("Authorization", "")
        self.seen.append({"authorization": passed, **query})
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        known = passed == f"Basic {pair}" or query.get("refresh_token") == ["kept"]
        if not known:
            body, status = b'{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}', 401
        else:
            scopes = [word for text in query.get("scope", ()) for word in text.split()]
            document: dict[str, Any] = {"token": self._token(scopes), "expires_in": 300}
            if query.get("offline_token") == ["true"]:
                document["refresh_token"] = "kept"
            body, status = json.dumps(document).encode(), 200
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _token(self, scopes: list[str]) -> str:
        """Return a JSON web token (RFC 7519, RS256) with the signer's certificate in its header."""
        signer = self.directory / "signer"
        certificate = ssl.PEM_cert_to_DER_cert((signer / "server.crt").read_text())
        header = {
            "typ": "JWT",
            "alg": "RS256",
            "x5c": [base64.b64encode(certificate).decode()],
        }
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")[0], scope.split(":")[1], scope.split(":")[-1]
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        claims = {
            "iss": "test issuer",
            "sub": USER,
            "aud": "test registry",
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": "1",
            "access": access,
        }
        signed = ".".join(_url(json.dumps(part).encode()) for part in (header, claims))
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(signer / "server.key")],
            input=signed.encode(),
            capture_output=True,
            check=True,
            timeout=30,
        )
        return f"{signed}.{_url(done.stdout)}"


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextlib.contextmanager
def token_server(directory: Path) -> Iterator[TokenServer]:
    server = TokenServer(directory)
    try:
        yield server
    finally:
        server.close()
