"""Being attached to a container: its terminal, its signals, its end.

Used by ``run``, ``start --attach`` and ``attach``; ``exec`` is the same without a wait. The flags
that all of them have are here too.
"""

from __future__ import annotations

from posix import isatty

from jaula.cli.client.hijack import HijackedStream, check_hijacked, exit_status
from jaula.cli.command import Flag
from jaula.cli.errors import EngineError, ExitStatus, Unreachable
from jaula.cli.signals import ENDING, NAMES, PROXIED, SIGWINCH, SignalHandler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.cli.client.client import Client
    from jaula.cli.client.detach_keys import DetachKeys
    from jaula.cli.client.http import Connection
    from jaula.cli.command import Options

DETACH_KEYS = Flag(
    "detach-keys", "", "string", "Keys that detach from the container", default="ctrl-p,ctrl-q"
)
SIG_PROXY = Flag("sig-proxy", "", "bool", "Pass signals on to the process", default="true")


class AttachLoop:
    """One attached container or exec, from before its start to its end.

    ``resize_path`` is the API path that resizes its terminal, ``kill_path`` the one that signals it
    (empty: signals are not passed on).
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

    def follow(
        self,
        connection: Connection,
        *,
        start: Callable[[], None] | None = None,
        waiting: Connection | None = None,
        redraw: bool = False,
    ) -> bool:
        """Start what is attached, then pump until it ends; whether the person detached.

        The terminal is raw from before the start and restored on every way out. ``redraw`` changes
        the size twice, which makes a running full-screen program draw itself.
        """
        attachment = HijackedStream(
            connection, framed=not self.tty, stdin=0 if self.stdin else None, keys=self._keys
        )
        signals = PROXIED if self._kill_path else (*ENDING, SIGWINCH) if self.tty else ()
        if self.tty and self.stdin and isatty(0):
            from jaula.cli.output.terminal import RawTerminal

            with RawTerminal(0), SignalHandler(signals) as interrupts:
                self._pump(attachment, interrupts, start, waiting, redraw)
        elif signals:
            with SignalHandler(signals) as interrupts:
                self._pump(attachment, interrupts, start, waiting, redraw)
        else:
            self._pump(attachment, None, start, waiting, redraw)
        connection.close()
        return attachment.detached

    def _pump(
        self,
        attachment: HijackedStream,
        interrupts: SignalHandler | None,
        start: Callable[[], None] | None,
        waiting: Connection | None,
        redraw: bool,
    ) -> None:
        if start is not None:
            start()
        self._started = True
        if self.tty:
            self.resize(redraw=redraw)
        attachment.run(interrupts, self._signal, waiting)

    def resize(self, *, redraw: bool = False) -> None:
        """Tell the engine how large the terminal is; a container that has ended does not mind."""
        if not isatty(1):
            return
        from jaula.cli.output.terminal import size

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
                return  # it has ended, which the wait will tell
        else:
            raise ExitStatus(128 + number)


def detach_keys_of(options: Options, *, tty: bool, stdin: bool) -> DetachKeys | None:
    """The keys that detach, None where nobody can type them. Raises UsageError for bad ones."""
    if not ((tty and stdin) or options.is_set("detach-keys")):
        return None
    from jaula.cli.client.detach_keys import DetachKeys

    keys = DetachKeys(options.text("detach-keys"))  # looked at before anything is created
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
    """Ask for the container's streams; the answer is not read yet."""
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
    """Follow ``connection`` by the command's flags; whether the person detached.

    ``start`` starts the container; without it, it runs already and is made to draw itself.
    """
    path = f"/containers/{container}"
    following = AttachLoop(
        client,
        tty=tty,
        stdin=stdin,
        resize_path=path + "/resize",
        kill_path=path + "/kill" if options.on("sig-proxy", True) else "",
        keys=keys,
    )
    return following.follow(connection, start=start, waiting=waiting, redraw=start is None)


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
    """Attach to a container, start it and stay to its end; its exit status, 0 when detached.

    ``removed`` tells that the engine removes it then, which is waited for.
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
    """The exit status that ``waiting`` was asked for."""

    def again() -> Connection:
        return send_wait(client, container, "not-running")

    return exit_status(waiting, again)


def send_wait(client: Client, container: str, condition: str) -> Connection:
    """Send a ``wait`` on a connection of its own; its head is not read yet."""
    from jaula.cli.client.client import target

    connection = client.connection()
    connection.send("POST", target(f"/containers/{container}/wait", (("condition", condition),)))
    return connection
