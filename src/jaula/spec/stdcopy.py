"""The framing of stdout and stderr in one stream.

Source: moby ``pkg/stdcopy`` and 'Attach to a container, Stream format' of the Engine API: a byte
for the stream, three zero bytes, the length as 32 bits big endian, then that many bytes.
"""

from __future__ import annotations

import struct

STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}

_header = struct.Struct(">BxxxL").pack


def frame(stream: str, data: bytes) -> bytes:
    """Return ``data`` with its header; ``stream`` is stdin, stdout or stderr."""
    return _header(STREAMS[stream], len(data)) + data
