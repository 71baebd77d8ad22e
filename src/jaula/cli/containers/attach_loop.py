"""Attach to a container: its streams, terminal, signals and exit status.

Used by ``run``, ``start --attach`` and ``attach``. ``exec`` uses it without a wait. The flags that
these commands share are here too.
"""

from __future__ import annotations

from posix import isatty

from jaula.cli.cli_errors import EngineError, ExitStatus, Unreachable
from jaula.cli.client.hijack import HijackedStream, check_hijacked, exit_status
from jaula.cli.command_parser import Flag
from jaula.cli.signal_events import ENDING, NAMES, PROXIED, SIGWINCH, SignalHandler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.cli.client.api_client import Client
    from jaula.cli.client.detach_key_matcher import DetachKeys
    from jaula.cli.client.http_client import Connection
    from jaula.cli.command_parser import Options

DETACH_KEYS = Flag(
    "detach-keys",
    "",
    "string",
    "Override the key sequence for detaching a container",
    default="ctrl-p,ctrl-q",
)
SDNOTIFY = Flag(
    "sdnotify",
    "",
    "string",
    "Notify the service manager (container, conmon, healthy, ignore)",
    metavar="mode",
    completes=("container", "conmon", "healthy", "ignore"),
)
SIG_PROXY = Flag("sig-proxy", "", "bool", "Proxy received signals to the process", default="true")


class AttachLoop:
    """One attached container or exec, from before its start to its end.

    ``resize_path`` is the API path that resizes its terminal. ``kill_path`` is the one that signals
    it; if empty, signals are not forwarded.
    """

    def __init__(
        self,
        client: Client,
        *,
        tty: bool,
        stdin: bool,
        resize_path: str,
        kill_path: str = "",
        keys: DetachKeys | None = None,
    ) -> None:
        self.client = client
        self.tty = tty
        self.stdin = stdin
        self._resize_path = resize_path
        self._kill_path = "" if tty else kill_path
        self._keys = keys
        self._started = False

    def run(
        self,
        connection: Connection,
        *,
        start: Callable[[], None] | None = None,
        waiting: Connection | None = None,
        redraw: bool = False,
    ) -> bool:
        """Start the container or exec, copy its streams until it ends; return whether it detached.

        ``start`` starts it; None if it runs already. ``waiting`` is the connection of a ``wait``.
        The terminal is raw from before the start and restored on every way out. ``redraw`` changes
        the terminal size twice, which makes a running full-screen program redraw itself.
        """
        stream = HijackedStream(
            connection, framed=not self.tty, stdin=0 if self.stdin else None, keys=self._keys
        )
        signals = PROXIED if self._kill_path else (*ENDING, SIGWINCH) if self.tty else ()
        if self.tty and self.stdin and isatty(0):
            from jaula.cli.output.user_terminal import RawTerminal

            with RawTerminal(0), SignalHandler(signals) as handler:
                self._pump(stream, handler, start, waiting, redraw)
        elif signals:
            with SignalHandler(signals) as handler:
                self._pump(stream, handler, start, waiting, redraw)
        else:
            self._pump(stream, None, start, waiting, redraw)
        connection.close()
        return stream.detached

    def _pump(
        self,
        stream: HijackedStream,
        handler: SignalHandler | None,
        start: Callable[[], None] | None,
        waiting: Connection | None,
        redraw: bool,
    ) -> None:
        if start is not None:
            start()
        self._started = True
        if self.tty:
            self.resize(redraw=redraw)
        stream.run(handler, self._signal, waiting)

    def resize(self, *, redraw: bool = False) -> None:
        """Send the size of the terminal to the engine.

        An error is ignored: the container may have ended.
        """
        if not isatty(1):
            return
        from jaula.cli.output.user_terminal import size

        height, width = size(1)
        if not height and not width:
            return
        sizes = [(height + 1, width + 1)] if redraw else []
        for rows, columns in [*sizes, (height, width)]:
            try:
                self.client.request("POST", self._resize_path, (("h", rows), ("w", columns)))
            except (EngineError, Unreachable):
                return

    def _signal(self, number: int) -> None:
        if self.tty and number == SIGWINCH:
            self.resize()
        elif self._kill_path:
            try:
                self.client.request("POST", self._kill_path, (("signal", NAMES[number]),))
            except EngineError:
                return  # the container has ended; the answer of wait reports it
        else:
            raise ExitStatus(128 + number)


def detach_keys_of(options: Options, *, tty: bool, stdin: bool) -> DetachKeys | None:
    """Return the detach keys, or None if there is no terminal to type them.

    :raises UsageError: when the flag is invalid.
    """
    if not ((tty and stdin) or options.is_set("detach-keys")):
        return None
    from jaula.cli.client.detach_key_matcher import DetachKeys

    keys = DetachKeys(options.text("detach-keys"))  # validated before anything is created
    return keys if tty and stdin else None


def send_attach(
    client: Client,
    container: str,
    options: Options,
    *,
    stdin: bool,
    stdout: bool = True,
    stderr: bool = True,
) -> Connection:
    """Send a request for the container's streams. The answer is still unread."""
    query = (
        ("stream", True),
        ("stdin", stdin),
        ("stdout", stdout),
        ("stderr", stderr),
        ("detachKeys", options.text("detach-keys")),
    )
    return client.send_hijack(f"/containers/{container}/attach", query)


def attach_container(
    client: Client,
    container: str,
    options: Options,
    connection: Connection,
    waiting: Connection,
    *,
    tty: bool,
    stdin: bool,
    keys: DetachKeys | None,
    start: Callable[[], None] | None = None,
) -> bool:
    """Attach to ``connection`` by the flags of the command; return whether the user detached.

    ``start`` starts the container. Without it the container runs already and its terminal is
    redrawn.
    """
    path = f"/containers/{container}"
    loop = AttachLoop(
        client,
        tty=tty,
        stdin=stdin,
        resize_path=path + "/resize",
        kill_path=path + "/kill" if options.on("sig-proxy", True) else "",
        keys=keys,
    )
    return loop.run(connection, start=start, waiting=waiting, redraw=start is None)


def start_attached(
    client: Client,
    container: str,
    options: Options,
    start: Callable[[], None],
    *,
    tty: bool,
    stdin: bool,
    stdout: bool = True,
    stderr: bool = True,
    keys: DetachKeys | None,
    removed: bool,
) -> int:
    """Attach to a container, start it and wait for its end.

    Return its exit status, or 0 if the user detached. ``removed`` is set if the engine removes the
    container at its end; the removal is waited for.
    """
    connection = send_attach(client, container, options, stdin=stdin, stdout=stdout, stderr=stderr)
    waiting = send_wait(client, container, "removed" if removed else "next-exit")
    check_hijacked(connection)
    waiting.response_head()
    detached = attach_container(
        client,
        container,
        options,
        connection,
        waiting,
        tty=tty,
        stdin=stdin,
        keys=keys,
        start=start,
    )
    return 0 if detached else wait_status(client, waiting, container)


def wait_status(client: Client, waiting: Connection, container: str) -> int:
    """Return the exit status from the answer on ``waiting``."""

    def retry() -> Connection:
        return send_wait(client, container, "not-running")

    return exit_status(waiting, retry)


def send_wait(client: Client, container: str, condition: str) -> Connection:
    """Send a ``wait`` request on a connection of its own. The response head is still unread."""
    from jaula.cli.client.api_client import target

    connection = client.connection()
    connection.send("POST", target(f"/containers/{container}/wait", (("condition", condition),)))
    return connection
