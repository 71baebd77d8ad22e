"""A registry of one image with a table of contents, whose large answers a test can hold back."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from typing import Any

from harness.indexed_layers import IndexedLayer
from harness.scripted_registry import (
    CONFIG,
    MANIFEST,
    Request,
    ScriptedRegistry,
    config_of,
    described,
    digest,
)

LARGE = 1 << 20  # bytes; larger answers are those of the background
_PIECE = 1 << 16  # bytes


class SlowRegistry(ScriptedRegistry):
    """Serves ``box:1``. ``gate`` lets large answers pass; ``alive`` is false for a dead network.

    ``ranges`` is false for a registry that always sends the whole blob, ``lost`` is true for one
    that does not have the blobs any more, ``corrupt`` for one that sends other bytes,
    ``silent`` for one that takes requests and sends nothing. With ``password``, the user ``user``
    has to state it.
    """

    def __init__(self, *layers: IndexedLayer, **config: Any) -> None:
        super().__init__(*(layer.blob for layer in layers))
        del self.blobs[digest(self.config)]
        self.diff_ids = [layer.diff_id for layer in layers]
        self.config = config_of(
            config={"Cmd": ["sh"], **config},
            rootfs={"type": "layers", "diff_ids": self.diff_ids},
        )
        self.blobs[digest(self.config)] = self.config
        self.manifest_document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(self.config, CONFIG),
            "layers": [layer.descriptor for layer in layers],
        }
        self.gate = threading.Event()
        self.gate.set()
        self.alive = True
        self.ranges = True
        self.lost = False
        self.corrupt = False
        self.silent = False
        self.password = ""
        self.served = 0  # bytes of blobs
        self.requests = 0  # for blobs
        for layer in layers:
            self.scripts[self.blob_path(layer.blob)] = self._serve(layer.blob)

    @property
    def image(self) -> str:
        return f"{self.name}/box:1"

    def honest(self, request: Request) -> None:
        if self._is_authorized(request):
            super().honest(request)

    def _is_authorized(self, request: Request) -> bool:
        """Return whether a request has the password; answer it if it has not."""
        basic = b64encode(f"user:{self.password}".encode()).decode()
        if not self.password or request.headers.get("Authorization") == f"Basic {basic}":
            return True
        body = b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}'
        request.answer(401, body, WWW_Authenticate='Basic realm="slow"')
        return False

    def _serve(self, blob: bytes) -> Any:
        def script(request: Request) -> None:
            self.requests += 1
            if not self._is_authorized(request):
                return
            if not self.alive:
                request.hang_up()
                return
            if self.lost:
                request.answer(404, b'{"errors": [{"code": "BLOB_UNKNOWN", "message": "lost"}]}')
                return
            while self.silent and self.alive:
                time.sleep(0.02)
            stated = request.headers.get("Range", "")
            first, _, last = stated.removeprefix("bytes=").partition("-")
            begin = int(first) if first else 0
            end = int(last) + 1 if last else len(blob)
            more: dict[str, str] = {}
            if stated and self.ranges:
                more["Content_Range"] = f"bytes {begin}-{end - 1}/{len(blob)}"
            else:
                begin, end = 0, len(blob)
            request.head(
                206 if more else 200,
                "application/octet-stream",
                Content_Length=str(end - begin),
                **more,
            )
            large = end - begin > LARGE
            while begin < end:
                while large and not self.gate.is_set():
                    time.sleep(0.01)
                    if not self.alive or self.lost:
                        request.hang_up()
                        return
                piece = blob[begin : min(begin + _PIECE, end)]
                if self.corrupt:
                    piece = piece[:-1] + bytes([piece[-1] ^ 1])
                request.wfile.write(piece)
                self.served += len(piece)
                begin += len(piece)

        return script
