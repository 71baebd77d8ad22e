"""Copy between a hijacked connection and the standard streams of the client.

One poll loop handles the output of the container, the user's input, signals, and the answer of
``wait``. Input is never sent with a blocking call, so a container that does not read its input
cannot block its own output.
"""

from __future__ import annotations

from posix import read
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, poll

from jaula.cli.cli_errors import Unreachable
from jaula.cli.client.http_client import MSG_NOSIGNAL
from jaula.cli.client.output_streams import STDERR, write_all
from jaula.spec.stdcopy import StdcopyReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.cli.client.detach_key_matcher import DetachKeys
    from jaula.cli.client.http_client import Connection
    from jaula.cli.signal_events import SignalHandler

MSG_DONTWAIT = 0x40
_WAIT_ATTEMPTS = 600  # of a wait after the engine has ended, one in 0.1 s
SHUT_WR = 1
READ = 65536


def check_hijacked(connection: Connection) -> Connection:
    """Read the answer to a hijack request and return the connection.

    :raises EngineError: when the engine refused.
    """
    from jaula.cli.client.api_client import checked

    checked(connection.response())
    return connection


class HijackedStream:
    """The streams of one container or exec on ``connection``, after the response head was read.

    ``framed`` selects Docker's multiplexed stream (no terminal). ``stdin`` is the descriptor to
    read input from, None for no input.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        framed: bool,
        stdin: int | None = None,
        keys: DetachKeys | None = None,
    ) -> None:
        self._connection = connection
        self._socket = connection.socket
        self._frames = StdcopyReader() if framed else None
        self._stdin = stdin
        self._keys = keys
        self._pending = b""
        self._input_closed = stdin is None

    @property
    def detached(self) -> bool:
        """Return whether the user typed the detach keys."""
        return self._keys is not None and self._keys.matched

    def run(
        self,
        signals: SignalHandler | None = None,
        on_signal: Callable[[int], None] | None = None,
        waiting: Connection | None = None,
    ) -> None:
        """Copy until the engine ends the stream and ``waiting``, if any, has an answer.

        The answer itself is left unread on ``waiting``. A detached stream ends at once.
        """
        self._show(self._connection.leftover())
        poller = poll()
        stream = self._socket.fileno()
        poller.register(stream, POLLIN)
        if self._stdin is not None:
            poller.register(self._stdin, POLLIN)
        if signals is not None:
            poller.register(signals.fileno(), POLLIN)
        answer = waiting.fileno() if waiting is not None else -1
        streaming, answered = True, waiting is None
        if waiting is not None:
            poller.register(answer, POLLIN)
        while streaming or not (answered or self.detached):
            for descriptor, event in poller.poll():
                if signals is not None and descriptor == signals.fileno():
                    for number in signals.take():
                        if on_signal is not None:
                            on_signal(number)
                elif descriptor == stream:
                    if event & POLLOUT:
                        self._flush(poller)
                    if event & (POLLIN | POLLHUP | POLLERR) and not self._receive():
                        streaming = False
                        poller.unregister(stream)
                        self._stop_input(poller)
                elif descriptor == answer:
                    answered = True
                    poller.unregister(answer)
                elif event & POLLNVAL:
                    self._close_input(poller)
                elif not self._input_closed:
                    self._read_input(poller)

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(READ)
        except OSError:
            return False
        self._show(data)
        return bool(data)

    def _show(self, data: bytes) -> None:
        if not data:
            return
        if self._frames is None:
            write_all(1, data)
            return
        for number, payload in self._frames.feed(data):
            write_all(2 if number == STDERR else 1, payload)

    def _read_input(self, poller: poll) -> None:
        assert self._stdin is not None
        try:
            data = read(self._stdin, READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_input(poller)
            return
        if self._keys is not None:
            self._keys.watch(data)
        self._pending += data
        self._flush(poller)
        if self.detached:
            self._stop_input(poller)

    def _flush(self, poller: poll) -> None:
        try:
            sent = self._socket.send(self._pending, MSG_DONTWAIT | MSG_NOSIGNAL)
            self._pending = self._pending[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._pending = b""  # the container closed its input; its output may continue
            self._stop_input(poller)
        if self._pending:
            poller.modify(self._socket.fileno(), POLLIN | POLLOUT)
            if not self._input_closed and self._stdin is not None:
                poller.modify(self._stdin, 0)
            return
        poller.modify(self._socket.fileno(), POLLIN)
        if self._input_closed:
            self._half_close()
        elif self._stdin is not None:
            poller.modify(self._stdin, POLLIN)

    def _close_input(self, poller: poll) -> None:
        self._stop_input(poller)
        if not self._pending:
            self._half_close()

    def _stop_input(self, poller: poll) -> None:
        if self._stdin is not None and not self._input_closed:
            poller.unregister(self._stdin)
        self._input_closed = True

    def _half_close(self) -> None:
        if self.detached:
            return
        try:
            self._socket.shutdown(SHUT_WR)
        except OSError:
            return  # the engine closed the connection first


def exit_status(waiting: Connection, retry: Callable[[], Connection]) -> int:
    """Return the exit status in the answer of ``wait``.

    ``retry`` sends the request again when the engine restarts meanwhile.

    :raises CliError: when the engine cannot report the status.
    :raises Unreachable: when the engine does not come back.
    """
    from jaula.cli.cli_errors import CliError, EngineError
    from jaula.cli.client.api_client import checked
    from jaula.spec import fast_json

    attempts = _WAIT_ATTEMPTS
    while True:
        try:
            document = fast_json.decode(waiting.response_body())
            break
        except (Unreachable, ValueError, OSError):
            attempts -= 1
            if not attempts:
                raise Unreachable(
                    "the engine stopped before it reported the exit status", status=125
                ) from None
            from time import sleep

            sleep(0.1)
            try:
                waiting = retry()
                checked(waiting.response_head())
            except EngineError as error:
                raise CliError(
                    f"the engine restarted and cannot report the exit status: {error.reason}",
                    status=125,
                ) from None
            except (Unreachable, OSError):
                continue
    reason = document.get("Error") or {}
    if isinstance(reason, dict) and reason.get("Message"):
        raise CliError(f"Error waiting for container: {reason['Message']}", status=125)
    return int(document["StatusCode"])
