"""The client as the main process of a service of systemd.

Source: sd_notify(3), sd_listen_fds(3), systemd.service(5). A container's processes are children of
the engine's shim and in a cgroup of their own. So the client stays: systemd supervises the client,
which forwards signals and exits with the container's status.
"""

from __future__ import annotations

import sys
from posix import O_RDONLY, O_WRONLY, _exit, dup2, fork, open, setsid
from select import POLLIN, poll

from jaula.cli.cli_errors import CliError, EngineError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.containers import container_sd_notify, listen_fds
from jaula.cli.containers.attach_loop import send_wait, wait_status
from jaula.cli.main import Settings
from jaula.cli.signal_events import NAMES, PROXIED, SignalHandler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from jaula.cli.command_parser import Options

_FAILED = 125


def of(options: Options) -> Service | None:
    """Return the service of a command, None if no service manager has started it.

    :raises UsageError: when the flags are invalid.
    """
    notifier = container_sd_notify.notifier(options.text("sdnotify", "ignore"))
    number = listen_fds.count()
    if notifier is None and not number:
        return None
    for flag in ("why", "record"):
        if options.is_set(flag):
            raise UsageError(f"conflicting options: --{flag} and a service of systemd")
    if number and options.text("restart", "no") != "no":
        raise UsageError(
            "conflicting options: --restart and LISTEN_FDS: the sockets are for one start"
        )
    Client.autostart = False  # an engine of its own would end with the service
    return Service(notifier, number, init=options.on("init"), removed=options.on("rm"))


def of_start(options: Options) -> Service | None:
    """Return the service of a container that exists, None if no service manager has started it.

    :raises UsageError: when the mode is unknown, or the container would need another environment.
    """
    mode = options.text("sdnotify")
    if mode == "container":
        raise UsageError("--sdnotify=container is for run: a container that exists has no socket")
    notifier = container_sd_notify.notifier(mode)
    if notifier is None:
        return None
    Client.autostart = False
    return Service(notifier, 0, init=False, removed=False)


class Service:
    """A container and its service.

    ``notifier`` is None if the service manager expects no messages. ``sockets`` is the number of
    descriptors that it has passed; ``init`` is set if the container has an init. ``removed`` is set
    if the engine removes the container at its end.
    """

    def __init__(
        self,
        notifier: container_sd_notify.Notifier | None,
        sockets: int,
        *,
        init: bool,
        removed: bool,
    ) -> None:
        self._notifier = notifier
        self._sockets = sockets
        self._init = init
        self._removed = removed

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        if self._notifier is not None:
            self._notifier.close()

    def prepare(self, body: dict[str, Any]) -> None:
        """Add to the body of a request what the service gives the container."""
        if self._notifier is not None:
            self._notifier.prepare(body)
        if self._sockets:
            variables = listen_fds.variables(self._sockets, init=self._init)
            body.setdefault("Env", []).extend(variables)

    def created(self, client: Client, container: str) -> None:
        """Check a container that is not started yet, and give it its sockets.

        :raises CliError: when the service manager could wait for it in vain.
        :raises EngineError: when the engine refuses the sockets.
        """
        if self._notifier is not None:
            self._notifier.check(client, container)
        if self._sockets:
            listen_fds.send(client, container, self._sockets)

    def started(self, container: str) -> None:
        """Report that the container runs."""
        if self._notifier is not None:
            self._notifier.started(_client, container)

    def supervise(self, client: Client, container: str, start: Callable[[], None]) -> None:
        """Start a container, and let a child of this process be the main process of the service.

        This process returns as soon as the service manager knows the child.
        """
        if self._notifier is None:
            start()
            return
        waiting = send_wait(client, container, "removed" if self._removed else "next-exit")
        waiting.response_head()
        start()
        if child := fork():
            self._notifier.send(f"MAINPID={child}".encode())
            self._notifier.barrier()
            self._notifier.leave()
            return
        status = _FAILED
        try:
            setsid()
            dup2(open("/dev/null", O_RDONLY), 0)
            dup2(open("/dev/null", O_WRONLY), 1)
            own = _client()
            with SignalHandler(PROXIED) as handler:
                self.started(container)
                poller = poll()
                poller.register(waiting.fileno(), POLLIN)
                poller.register(handler.fileno(), POLLIN)
                while not any(fd == waiting.fileno() for fd, _ in poller.poll()):
                    for number in handler.take():
                        _kill(own, container, NAMES[number])
            status = wait_status(own, waiting, container)
            self._notifier.close()
        except CliError as error:
            sys.stderr.write(error.message + "\n")
        finally:
            sys.stderr.flush()
            _exit(status)


def _client() -> Client:
    return Client(Settings.host)


def _kill(client: Client, container: str, name: str) -> None:
    try:
        client.request("POST", f"/containers/{container}/kill", (("signal", name),))
    except EngineError:
        return  # it has ended; the answer of wait reports it
