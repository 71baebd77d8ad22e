"""A client that stays as long as its pods run: the main process of a service of systemd."""

from __future__ import annotations

from contextlib import contextmanager
from posix import getpid

from jaula.cli.cli_errors import UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.containers import container_sd_notify
from jaula.cli.signal_events import ENDING, SignalHandler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Supervisor:
    """The signals of this process, and its service manager if there is one."""

    def __init__(
        self, notifier: container_sd_notify.Notifier | None, signals: SignalHandler
    ) -> None:
        self._notifier = notifier
        self._signals = signals
        self.signalled = False

    def ready(self) -> None:
        """Tell the service manager that the pods run."""
        if self._notifier is not None:
            self._notifier.send(f"MAINPID={getpid()}\nREADY=1".encode())

    def ended(self) -> bool:
        """Return whether a signal asked this process to end; send a sign of life if not."""
        self.signalled = self.signalled or bool(self._signals.take())
        if self._notifier is not None:
            if self.signalled:
                self._notifier.send(b"STOPPING=1")
            elif self._notifier.watched:
                self._notifier.send(b"WATCHDOG=1")
        return self.signalled


@contextmanager
def supervise(mode: str) -> Iterator[Supervisor]:
    """Yield what a command that waits for pods needs; ``mode`` is the value of ``--sdnotify``.

    :raises UsageError: when the mode is not for pods.
    """
    if mode not in ("conmon", "ignore"):
        raise UsageError(f"--sdnotify={mode}: it must be conmon or ignore for pods")
    notifier = container_sd_notify.notifier(mode)
    if notifier is not None:
        Client.autostart = False  # an engine of its own would end with the service
    with SignalHandler(ENDING) as signals:
        try:
            yield Supervisor(notifier, signals)
        finally:
            if notifier is not None:
                notifier.close()
