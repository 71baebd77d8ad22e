"""Git repositories and HTTP servers for them on loopback: git-http-backend, and plain files."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

BACKEND = "/usr/lib/git-core/git-http-backend"
AUTHOR = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
ENVIRONMENT = {**os.environ, **AUTHOR, "GIT_COMMITTER_EMAIL": "a@b", "HOME": "/nonexistent"}


def git(where: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", "-C", str(where), *words],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def repository(top: Path, name: str, files: dict[str, str]) -> Path:
    """Create a repository with one commit on the branch ``main``."""
    place = top / f"{name}.git"
    place.mkdir(parents=True)
    git(place, "init", "-q", "-b", "main")
    commit(place, files)
    return place


def commit(place: Path, files: dict[str, str]) -> str:
    for path, content in files.items():
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "x")
    return git(place, "rev-parse", "HEAD")


class Handler(BaseHTTPRequestHandler):
    """git-http-backend behind the standard library's server."""

    root = Path()

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _serve(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        variables = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        done = subprocess.run([BACKEND], input=body, env=variables, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return


class StaticHandler(SimpleHTTPRequestHandler):
    """Plain files: "dumb" HTTP. ``requests`` has the paths, with the header Authorization."""

    requests: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers.get("Authorization", "")))
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def served(top: Path) -> Iterator[str]:
    """Serve every repository below ``top`` and yield the URL."""
    with _listening(type("Served", (Handler,), {"root": top})) as url:
        yield url


@contextmanager
def served_as_files(
    top: Path, host: str = "127.0.0.1"
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Serve the files below ``top``; yield the URL and the requests that arrive."""
    requests: list[tuple[str, str]] = []
    kind = type("Static", (StaticHandler,), {"requests": requests})
    with _listening(partial(kind, directory=str(top)), host) as url:
        yield url, requests


def bare(place: Path, target: Path) -> Path:
    """Copy a repository to ``target``, in the form that a server of plain files needs."""
    git(place, "clone", "-q", "--bare", str(place), str(target))
    git(target, "update-server-info")
    return target


@contextmanager
def _listening(handler: Any, host: str = "127.0.0.1") -> Iterator[str]:
    held = ThreadingHTTPServer((host, 0), handler)
    held.daemon_threads = True
    thread = threading.Thread(target=held.serve_forever)
    thread.start()
    try:
        yield f"http://{host}:{held.server_port}"
    finally:
        held.shutdown()
        held.server_close()
        thread.join()
