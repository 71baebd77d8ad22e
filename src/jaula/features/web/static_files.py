"""The pages, scripts and styles of the view, compressed once and kept in memory.

Nothing is read by a path of a request: the files are listed at the first request.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from jaula.errors import Unavailable

DIRECTORY = Path(__file__).with_name("static")
LOCK = Path(__file__).with_name("assets.json")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".LICENSE": "text/plain; charset=utf-8",
}
_PACKED = 1024  # bytes from which a file is compressed


class StaticFile(NamedTuple):
    """One file: its media type, its tag, its bytes and these compressed (empty: not smaller)."""

    media_type: str
    etag: str
    data: bytes
    packed: bytes


class StaticFiles:
    """All files below a directory, by their path. ``fresh`` reads them for each request."""

    def __init__(self, directory: Path = DIRECTORY, *, fresh: bool = False) -> None:
        self._directory = directory
        self._fresh = fresh
        self._paths = {
            str(path.relative_to(directory)): path
            for path in directory.rglob("*")
            if path.is_file() and path.suffix in _TYPES
        }
        self._files: dict[str, StaticFile] = {}

    def require_vendor(self) -> None:
        """Check that the third-party files are installed.

        :raises Unavailable: when they are not.
        """
        names = [name for entry in json.loads(LOCK.read_text()) for name in entry["files"].values()]
        for name in names:
            if f"vendor/{name}" not in self._paths:
                raise Unavailable(
                    f"the web view lacks its file static/vendor/{name}",
                    hint="run scripts/web-assets, or install the wheel, which has it",
                )

    def find(self, name: str) -> StaticFile | None:
        """Return a file, None if there is none of this name."""
        path = self._paths.get(name)
        if path is None:
            return None
        if self._fresh or name not in self._files:
            data = path.read_bytes()
            packed = gzip.compress(data, 9, mtime=0) if len(data) >= _PACKED else b""
            etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            self._files[name] = StaticFile(_TYPES[path.suffix], etag, data, packed)
        return self._files[name]

    def response(self, request: Request, name: str, status: int = 200) -> Response:
        """Return the answer with a file, 304 if the browser has it, 404 if it does not exist."""
        file = self.find(name)
        if file is None:
            return PlainTextResponse("not found", 404)
        headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        data = file.data
        if file.packed and "gzip" in request.headers.get("accept-encoding", ""):
            data = file.packed
            headers["Content-Encoding"] = "gzip"
        return Response(data, status, headers, file.media_type)
