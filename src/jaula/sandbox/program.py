"""The program of a sandboxed process: import the work, give everything up, then take bytes.

``program.py SETTINGS`` with a JSON object: the import path, the function, the ids, limits and
rights, the descriptor of the engine's socket, and the pid of the parent with which it ends. The
function is ``module:name``; its module must import all that it needs, since no file can be opened
later.

With a channel the function is called as ``function(payload, descriptors, ask)`` for each call of
the engine, and returns bytes. ``ask(payload)`` asks the engine, and returns bytes and descriptors.
Without a channel it is called once, as ``function(descriptors)``.
"""

from __future__ import annotations

import json
import os
import sys

SETTINGS = json.loads(sys.argv[1])
sys.path[:] = SETTINGS["path"]

import importlib  # noqa: E402 - below the import path of the engine
import socket  # noqa: E402
from collections.abc import Callable  # noqa: E402

import msgspec  # noqa: E402

from jaula.errors import InvalidRequest, JaulaError  # noqa: E402
from jaula.kernel import process  # noqa: E402
from jaula.sandbox import channel, confinement  # noqa: E402
from jaula.sandbox.channel import ANSWER, CALL, FAILURE, QUERY, REFUSAL, RESULT  # noqa: E402
from jaula.sandbox.limits import Limits, Rights  # noqa: E402

MEMORY = b"memory"
"""The failure of a process that has reached its limit of memory."""
_TEXT_LIMIT = 4096  # characters of an error
_FRAME_LIMIT = 0xFFFFFFFF  # bytes: the engine is trusted, and memory is limited

Ask = Callable[[bytes], tuple[bytes, list[int]]]
Function = Callable[[bytes, list[int], Ask], bytes]


def failure(error: BaseException) -> bytes:
    """Return an error as the payload of a FAILURE."""
    if isinstance(error, RecursionError):
        error = InvalidRequest("the content is nested too deeply")
    if isinstance(error, JaulaError):
        name = next(c.__name__ for c in type(error).__mro__ if c.__module__ == "jaula.errors")
        text, hint = error.message, error.hint
    else:
        name, text, hint = "", f"{type(error).__name__}: {error}", None
    return msgspec.json.encode([name, text[:_TEXT_LIMIT], hint and hint[:_TEXT_LIMIT]])


def main() -> None:
    """Run the work of one process."""
    process.set_name(SETTINGS["name"])
    sock = None
    if SETTINGS["channel"] is not None:
        sock = socket.socket(fileno=SETTINGS["channel"])
    try:
        module, _, name = SETTINGS["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        limits = msgspec.convert(SETTINGS["limits"], Limits)
        rights = msgspec.convert(SETTINGS["rights"], Rights)
        confinement.enter(tuple(SETTINGS["ids"]), limits, rights, SETTINGS["parent"])
    except BaseException as error:
        if sock is None:
            raise
        channel.send(sock, FAILURE, failure(error))
        os._exit(1)
    if sock is None:
        function(SETTINGS["descriptors"])
        os._exit(0)

    def ask(payload: bytes) -> tuple[bytes, list[int]]:
        channel.send(sock, QUERY, payload)
        answer = channel.receive(sock, _FRAME_LIMIT)
        if answer is None:
            os._exit(0)
        kind, data, fds = answer
        if kind == REFUSAL:
            code, text = msgspec.json.decode(data, type=tuple[int, str])
            raise OSError(code, text)
        assert kind == ANSWER
        return data, fds

    channel.send(sock, RESULT, b"")  # confined: the engine may send its bytes
    while _serve(sock, function, ask):
        pass
    os._exit(0)


def _serve(sock: socket.socket, function: Function, ask: Ask) -> bool:
    """Do the work of one call; return False if the engine has closed the channel."""
    fds: list[int] = []
    try:
        frame = channel.receive(sock, _FRAME_LIMIT)
        if frame is None:
            return False
        kind, payload, fds = frame
        assert kind == CALL
        reply, data = RESULT, function(payload, fds, ask)
    except MemoryError:
        reply, data = FAILURE, MEMORY
    except Exception as error:  # noqa: BLE001 - the engine names it to the client
        reply, data = FAILURE, failure(error)
    for fd in fds:
        os.close(fd)
    channel.send(sock, reply, data)
    return True


if __name__ == "__main__":
    main()
