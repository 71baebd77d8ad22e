"""A program in the role of ``criu swrk``, for what is not about the images themselves.

It answers the requests for its version and features. A request to dump or restore runs the
function body that a test gives, with ``sock``, ``request``, ``rpc``, ``os`` and ``time``.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from harness.engine import PROJECT

VERSION = (4, 2)

_PROGRAM = """\
#!{python}
import os, signal, socket, sys, time
sys.path[:0] = [{source!r}, {packages!r}]
from jaula.features.checkpoint.runtime.proto import rpc_pb2 as rpc

def act(sock, request):
{body}

sock = socket.socket(fileno=int(sys.argv[3]))
while data := sock.recv(1 << 16):
    request = rpc.Request.FromString(data)
    answer = rpc.Response(type=request.type, success=True)
    if request.type == rpc.VERSION:
        answer.version.major, answer.version.minor = {version}
    elif request.type in (rpc.DUMP, rpc.RESTORE, rpc.PRE_DUMP):
        act(sock, request)
        answer.success = False
    sock.send(answer.SerializeToString())
    if not request.keep_open:
        break
"""


def write(directory: Path, body: str = "pass") -> Path:
    """Write the program as ``criu`` into a directory; return its path."""
    import google.protobuf

    packages = Path(google.protobuf.__file__).parents[2]
    path = directory / "criu"
    path.write_text(
        _PROGRAM.format(
            python=sys.executable,
            source=str(PROJECT / "src"),
            packages=str(packages),
            version=f"{VERSION[0]}, {VERSION[1]}",
            body=textwrap.indent(textwrap.dedent(body), "    "),
        )
    )
    path.chmod(0o755)
    return path
