"""Run a parser in a sandboxed process: bounded, without privilege, ended with its request.

A :class:`Worker` is a process for the calls of one request. It has nobody's ids, no capability and
no way to gain one, no file, no network, and the system calls of a computation. What it may read are
the bytes and descriptors of its calls, and the answers to its queries: the engine opens a file of
an image for it, and never looks at the content.

Its answer is as hostile as its input. It is bounded, and the caller converts it strictly.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import NoReturn, Self

import msgspec

from jaula import errors
from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.sandbox.fork_server import SERVER
from jaula.sandbox.sandbox_channel import (
    ANSWER,
    CALL,
    FAILURE,
    MAX_FDS,
    QUERY,
    REFUSAL,
    RESULT,
    FrameError,
    receive,
    send,
)
from jaula.sandbox.sandbox_limits import Limits, Rights
from jaula.sandbox.start_sandbox import Task

_QUERY_LIMIT = 64 << 10  # bytes of one query
_FAILURE_LIMIT = 64 << 10  # bytes of one failure
_START = 60.0  # seconds until the process is confined
_MEMORY = b"memory"

Answer = Callable[[bytes], tuple[bytes, Sequence[int]]]
"""Answer a query with bytes and descriptors, which are closed afterwards; OSError refuses it."""


class WorkerEnded(JaulaError):
    """The process has ended by itself, which a correct parser never does."""


class WorkerCancelled(JaulaError):
    """The request of a worker has ended."""

    def __init__(self) -> None:
        super().__init__("the operation was cancelled")


class Worker:
    """A sandboxed process with its calls. Use it as a context: the process ends with it.

    The kernel kills the process when this one ends, thus also with the engine.
    :meth:`call` blocks, one thread at a time; :meth:`cancel` may be called from any thread.
    """

    def __init__(
        self,
        task: Task,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        answer: Answer | None = None,
        *,
        rights: Rights = Rights(),  # noqa: B008 - frozen
    ) -> None:
        self._task = task
        self._limits = limits
        self._answer = answer
        self._lock = threading.Lock()
        self._cancelled = False
        self._ended = False
        self._started = False
        self._process = SERVER.fork(task, limits, rights)
        self._socket = self._process.channel

    @property
    def pid(self) -> int:
        """The pid of the process, which is reaped when the context ends."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the process, and wait for its end. Idempotent."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._process.close()
        self._socket.close()

    def cancel(self) -> None:
        """Kill the process; a call that runs raises :class:`WorkerCancelled`."""
        with self._lock:
            self._cancelled = True
            if not self._ended:
                self._process.kill()

    def call(self, payload: bytes, descriptors: Sequence[int] = ()) -> bytes:
        """Let the process work on bytes and descriptors, and return its result.

        :raises InvalidRequest: if the work exceeds a limit, or as the parser says.
        :raises WorkerCancelled: if the request has ended.
        :raises WorkerEnded: if the process dies.
        """
        with self._errors():
            return self._reply(self._send_call(payload, descriptors))

    def begin(self, payload: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a call, and return while the process works on it.

        :raises JaulaError: as :meth:`call`.
        """
        with self._errors():
            self._send_call(payload, descriptors)

    def receive(self) -> tuple[bytes, bool]:
        """Return what the process says next in a call that has begun, and whether it is the result.

        Otherwise it is a query, as long as a result may be, for :meth:`reply`.

        :raises JaulaError: as :meth:`call`.
        """
        with self._errors():
            kind, payload = self._next(monotonic() + self._limits.patience)
            if kind not in (RESULT, QUERY):
                raise FrameError(f"a frame {kind!r}")
            return payload, kind == RESULT

    def reply(self, data: bytes) -> None:
        """Answer a query that :meth:`receive` returned.

        :raises JaulaError: as :meth:`call`.
        """
        with self._errors():
            self._wait(monotonic() + self._limits.patience)
            send(self._socket, ANSWER, data)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise self.beyond(f"{self._limits.patience:g} seconds") from None
        except FrameError as error:
            raise self.invalid(str(error)) from None
        except (BrokenPipeError, ConnectionResetError):
            self._dead()

    def _send_call(self, payload: bytes, descriptors: Sequence[int]) -> float:
        """Send a call to the process when it is confined. Return when its time is over."""
        if not self._started:
            self._reply(monotonic() + _START)
            self._started = True
        deadline = monotonic() + self._limits.patience
        self._wait(deadline)
        send(self._socket, CALL, payload, descriptors)
        return deadline

    def _wait(self, deadline: float) -> None:
        remaining = deadline - monotonic()
        if remaining <= 0:
            raise TimeoutError
        self._socket.settimeout(remaining)

    def _next(self, deadline: float) -> tuple[bytes, bytes]:
        """Return kind and payload of the next frame, which is not a FAILURE."""
        limit = max(self._limits.result, _QUERY_LIMIT, _FAILURE_LIMIT)
        frame = receive(self._socket, limit, lambda: self._wait(deadline))
        if frame is None:
            self._dead()
        kind, payload, fds = frame
        for fd in fds:
            os.close(fd)
        if fds:
            raise FrameError("it has descriptors")
        if kind == FAILURE:
            self._fail(payload)
        return kind, payload

    def _reply(self, deadline: float) -> bytes:
        while True:
            kind, payload = self._next(deadline)
            if kind == RESULT:
                if len(payload) > self._limits.result:
                    raise self.beyond(f"a result of {_size(self._limits.result)}")
                return payload
            if kind != QUERY or self._answer is None or len(payload) > _QUERY_LIMIT:
                raise FrameError(f"a frame {kind!r} of {len(payload)} bytes")
            self._wait(deadline)
            self._give(payload)

    def _give(self, query: bytes) -> None:
        assert self._answer is not None
        try:
            data, fds = self._answer(query)
        except OSError as error:
            text = msgspec.json.encode((error.errno or 5, os.strerror(error.errno or 5)))
            send(self._socket, REFUSAL, text)
            return
        try:
            send(self._socket, ANSWER, data, fds[:MAX_FDS])
        finally:
            for fd in fds:
                os.close(fd)

    def _fail(self, payload: bytes) -> NoReturn:
        """Raise the error of the process, of a class that it may choose from our own."""
        if payload == _MEMORY:
            raise self.beyond(f"{_size(self._limits.memory)} of memory")
        try:
            name, text, hint = msgspec.json.decode(payload, type=tuple[str, str, str | None])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FrameError(str(error)) from None
        kind = getattr(errors, name, None) if name else None
        text = _printable(text)
        if kind not in (InvalidRequest, errors.Unsupported, errors.NotFound, errors.Conflict):
            raise self._ended_error(text)
        raise kind(text, hint=None if hint is None else _printable(hint))

    def _dead(self) -> NoReturn:
        """Raise the reason of the process's end."""
        with self._lock:
            if self._cancelled:
                raise WorkerCancelled
        try:
            status = self._process.wait(5)
        except TimeoutError:
            raise self._ended_error("it has closed its channel") from None
        if status == -signal.SIGXCPU:
            raise self.beyond(f"{self._limits.processor} seconds of processor time")
        if status == -signal.SIGKILL:
            raise Unavailable(
                f"the process that reads {self._task.subject} was killed",
                hint="the host may lack memory: try again",
            )
        raise self._ended_error(
            f"it was ended by signal {-status}" if status < 0 else f"it exited with {status}"
        )

    def beyond(self, what: str) -> InvalidRequest:
        """End the process, and return the error that it takes more than it may."""
        with self._lock:
            if not self._ended:
                self._process.kill()
        return InvalidRequest(
            f"reading {self._task.subject} takes more than {what}",
            hint="that is the limit for the content of one request: make it smaller",
        )

    def invalid(self, reason: str) -> WorkerEnded:
        """End the process, and return the error that its answer is not valid."""
        return self._ended_error(f"its answer is not valid: {reason}")

    def _ended_error(self, reason: str) -> WorkerEnded:
        with self._lock:
            if not self._ended:
                self._process.kill()
        return WorkerEnded(f"the process that reads {self._task.subject} has failed: {reason}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count} bytes"
