"""Work that makes a process, done in a helper so that the shim stays small.

Making a container touches a few megabytes of the memory that a shim shares with the zygote; copies
that the shim would keep for its whole life. So a forked helper does it and exits. The shim is a
child subreaper for that moment (prctl(2), PR_SET_CHILD_SUBREAPER): what the helper made becomes
the shim's own child, to be waited for.
"""

from __future__ import annotations

import _socket
import os
from collections.abc import Callable
from typing import NoReturn

import msgspec

from jaula.errors import JaulaError, RuntimeFailure
from jaula.kernel import process
from jaula.runtime import seqpacket
from jaula.runtime.create.process import ProcessHandle


class _Failed(msgspec.Struct, frozen=True, tag=True):
    text: str
    exit_code: int


class _Spawned(msgspec.Struct, frozen=True, tag=True):
    born: ProcessHandle


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Failed | _Spawned).decode
_SLOTS = ("master", "stdin", "stdout", "stderr")


class SpawnHelper:
    """Delivers processes, one at a time.

    A helper takes a millisecond to end. :meth:`deliver` does not wait for that, so that whoever
    waits for the process hears of it first; :meth:`settle` does.
    """

    def __init__(self) -> None:
        self._helper = 0

    def deliver(self, work: Callable[[], ProcessHandle]) -> ProcessHandle:
        """Run ``work`` in a helper; once settled, the process it made is our child.

        Raises ``RuntimeFailure`` with what the helper said.
        """
        self.settle()
        mine, theirs = seqpacket.pair()
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
        self._helper = os.fork()
        if self._helper == 0:
            mine.close()
            _help(work, theirs)
        theirs.close()
        try:
            data, fds = seqpacket.receive(mine)
        finally:
            mine.close()
        if not data:
            raise RuntimeFailure("the process that makes containers died")
        message = _decode(data)
        if isinstance(message, _Failed):
            raise RuntimeFailure(message.text, exit_code=message.exit_code)
        waiting = iter(fds)
        places = {
            name: next(waiting) if getattr(message.born, name) >= 0 else -1 for name in _SLOTS
        }
        born: ProcessHandle = msgspec.structs.replace(message.born, **places)
        return born

    def settle(self) -> None:
        """Wait for the helper's end: what it made is ours now."""
        if self._helper:
            os.waitpid(self._helper, 0)
            self._helper = 0
            process.prctl(process.PR_SET_CHILD_SUBREAPER, 0)


def _help(work: Callable[[], ProcessHandle], to: _socket.socket) -> NoReturn:
    try:
        try:
            born = work()
        except JaulaError as error:
            seqpacket.send(to, _encode(_Failed(str(error), error.exit_code)))
        else:
            fds = [fd for fd in (getattr(born, name) for name in _SLOTS) if fd >= 0]
            seqpacket.send(to, _encode(_Spawned(born)), fds)
    except BaseException as error:  # noqa: BLE001 - reported, and the helper ends
        seqpacket.send(to, _encode(_Failed(f"{type(error).__name__}: {error}", 125)))
    finally:
        os._exit(0)
