"""Messages of the engine to the service manager that started it.

Source: sd_notify(3), sd_watchdog_enabled(3), systemd.service(5).

Facts about ``EXTEND_TIMEOUT_USEC``: the time counts from the message, and applies only where the
unit's own ``TimeoutStartSec`` or ``TimeoutStopSec`` would end earlier. The next message has to
arrive within it. So a slow start with signs of life is not ended, and one that hangs is.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

START_STEP = 300  # seconds; no step of a start takes longer on a slow host
STOP_STEP = 60  # seconds
_INTERVAL = 30.0  # seconds between two messages of a start that goes on


def notify(state: str) -> None:
    """Send a state to the service manager if it expects one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address.replace("@", "\0", 1))


def extend_timeout(seconds: int = START_STEP) -> None:
    """Tell that the start or stop goes on: its end, or the next message, follows in that time."""
    notify(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000}")


def watchdog_period() -> float:
    """Return the seconds between two signs of life, 0 if the service manager expects none."""
    text = os.environ.get("WATCHDOG_USEC", "")
    if not text.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    return int(text) / 2e6


class Heartbeat:
    """Messages that the event loop runs. A loop that is blocked sends none.

    They extend the time of the start until the engine is ready, and feed the watchdog then. The
    service manager ends an engine without them, and starts it again; containers keep running.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Extend the time of the start, now and after each interval."""
        self._timer = self._loop.call_later(_INTERVAL, self.start)
        extend_timeout()

    def ready(self) -> None:
        """Tell that the engine is ready, and feed the watchdog from now on."""
        self._cancel()
        notify("READY=1")
        if period := watchdog_period():
            self._feed(period)

    def stop(self) -> None:
        """Tell that the engine stops. The time-outs of the stop apply now."""
        self._cancel()
        notify("STOPPING=1")

    def _feed(self, period: float) -> None:
        # Before the message, which can fail while the service manager executes itself again.
        self._timer = self._loop.call_later(period, self._feed, period)
        notify("WATCHDOG=1")

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
