"""The audit trail: the log of what was done, the log of what was refused, a share for each caller.

``<root>/audit/`` is the log of requests that changed something, or failed in the engine.
``<root>/audit/refused/`` is a log of the same format (:mod:`jaula.state.audit_log`) with its own
chain and head: requests that were answered with 304 or 4xx. So a refused request never replaces the
entry of one that was carried out.

**Repetition.** The first refused request of a caller, action and status is a line at once. Those
that follow within a minute are counted. They are one line with their ``count`` and the last object,
at the end of the minute or of the engine. A killed engine loses these counts, and no first line.

**Repeated requests.** A client may repeat a request for hours: the kubelet runs the command of a
probe each second. The first one of a caller with an object, arguments and status is a line at once.
Those that follow within an hour are one line with their ``count``. A killed engine loses these
counts.

**Share.** Each caller but root has a budget of bytes, which refills with time. When it is used up,
its requests are refused until it refills. Requests that stop or remove something stay possible and
are counted as above. So a caller alone needs more than a day to fill the files that are kept.

**Lines of the engine** (:meth:`AuditTrail.append_own`) are always written, since evidence depends
on them. Their bytes are spent of the share of the caller that caused them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from jaula.errors import ClientGone, TooManyRequests
from jaula.sha256 import sha256
from jaula.state.audit_log import AuditEntry, AuditLog, Head

REFUSED = "refused"
"""The directory of the log of refused requests."""
WINDOW = 60.0  # seconds in which equal lines are counted
CLIENT_CLOSED = ClientGone.status  # what it asked for may have been done
REPEAT_WINDOW = 3600.0  # seconds in which repeated requests are counted
_REPEATED_SIZE = 4096  # bytes of arguments; a request with more is not counted, but a line
_REFUSED_FILES = 8
_MAX_WINDOWS = 4096
_MAX_BUDGETS = 4096
_MANY = "several requests"  # action of a line for a caller whose budget is used up


class Share(NamedTuple):
    """A budget: the bytes that it holds, and those that it gains each second."""

    size: int
    refill: int


DONE_SHARE = Share(32 << 20, 4096)  # 370 MB a day at most; the log keeps 512 MiB
REFUSED_SHARE = Share(2 << 20, 512)  # 46 MB a day at most; the log keeps 128 MiB


class Budgets:
    """The budgets of all callers. ``clock`` returns seconds."""

    def __init__(self, share: Share, clock: Callable[[], float]) -> None:
        self._share = share
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # bytes, and when they were counted

    def left(self, caller: str) -> float:
        """Return the bytes that a caller may still write; negative if it wrote more."""
        left, since = self._left.get(caller, (float(self._share.size), self._clock()))
        return min(self._share.size, left + (self._clock() - since) * self._share.refill)

    def spend(self, caller: str, size: int) -> None:
        """Subtract the bytes of a line."""
        self._left[caller] = (self.left(caller) - size, self._clock())
        if len(self._left) > _MAX_BUDGETS:
            full = [each for each in self._left if self.left(each) >= self._share.size]
            for each in full:
                del self._left[each]

    def wait(self, caller: str) -> int:
        """Return the seconds until a caller may write again, 0 if it may now."""
        return max(0, int(-self.left(caller) / self._share.refill) + 1 if self.used(caller) else 0)

    def used(self, caller: str) -> bool:
        """Return whether a budget is used up."""
        return self.left(caller) <= 0


class _Key(NamedTuple):
    """Key of equal requests. ``identity`` is '' for refused ones."""

    log: AuditLog
    caller: str
    action: str
    status: int
    identity: str = ""


class _Window:
    """Equal requests of one caller that are counted."""

    def __init__(self, log: AuditLog, ends: float) -> None:
        self.log = log
        self.ends = ends
        self.count = 0
        self.last: AuditEntry | None = None


class AuditTrail:
    """Both logs of one engine. Not thread safe."""

    def __init__(
        self,
        directory: Path,
        *,
        done_share: Share = DONE_SHARE,
        refused_share: Share = REFUSED_SHARE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._done = AuditLog(directory)
        self._refused = AuditLog(directory / REFUSED, kept_files=_REFUSED_FILES)
        self._budgets = {
            self._done: Budgets(done_share, clock),
            self._refused: Budgets(refused_share, clock),
        }
        self._clock = clock
        self._windows: dict[_Key, _Window] = {}
        self.on_counted: Callable[[], None] = lambda: None

    @property
    def heads(self) -> tuple[Head, Head]:
        """The last lines of both logs: done, refused."""
        return self._done.last, self._refused.last

    def set_on_dirty(self, callback: Callable[[], None]) -> None:
        """Set what is called when a line was written that is not on the disk yet."""
        for log in self._budgets:
            log.on_dirty = callback

    def check(self, caller: str = "") -> None:
        """Check that a request can be logged. An empty caller has no share.

        :raises Unavailable: when lines cannot be written.
        :raises TooManyRequests: when the caller's budget is used up.
        """
        self._done.check()
        budgets = self._budgets[self._done]
        if caller and budgets.used(caller):
            raise TooManyRequests(
                "your share of the audit log is used up, so only stopping and removing is allowed",
                hint=f"try again in {budgets.wait(caller)} seconds",
            )

    def append(self, entry: AuditEntry, caller: str = "", *, repeated: bool = False) -> None:
        """Write an entry, or count it. An empty caller has no share.

        ``repeated`` says that clients repeat such a request, so that equal ones are counted.
        """
        refused = 300 <= entry.status < CLIENT_CLOSED
        log = self._refused if refused else self._done
        used = bool(caller) and self._budgets[log].used(caller)
        repeated = repeated and not refused and sum(map(len, entry.argv)) <= _REPEATED_SIZE
        if not refused and not used and not repeated:
            self._write(log, entry, caller)
            return
        key = _Key(log, caller, entry.action, entry.status, _identity(entry) if repeated else "")
        if refused and used:
            key, entry = _Key(log, caller, _MANY, 0), msgspec.structs.replace(entry, action=_MANY)
        now = self._clock()
        window = self._windows.get(key)
        if window is not None and now >= window.ends:
            self._close((key,))
            window = None
        if window is None:
            seconds = REPEAT_WINDOW if repeated else WINDOW
            window = self._windows[key] = _Window(log, now + seconds)
            if len(self._windows) > _MAX_WINDOWS:
                self._close((next(iter(self._windows)),))
            if not used:
                self._write(log, entry, caller)
                return
        window.count += 1
        window.last = entry
        if window.count == 1:
            self.on_counted()

    def append_own(self, entry: AuditEntry, caller: str = "") -> None:
        """Write an entry of the engine itself, and charge it to the share of ``caller``."""
        self._write(self._done, entry, caller)

    def _write(self, log: AuditLog, entry: AuditEntry, caller: str) -> None:
        size = log.append(entry)
        if caller:
            self._budgets[log].spend(caller, size)

    def flush(self) -> bool:
        """Write the counts of the windows that have ended. Return whether others are left."""
        now = self._clock()
        self._close([key for key, window in self._windows.items() if now >= window.ends])
        return any(window.count for window in self._windows.values())

    def _close(self, keys: Iterable[_Key]) -> None:
        for key in tuple(keys):
            window = self._windows.pop(key)
            if window.last is not None:
                entry = msgspec.structs.replace(window.last, count=window.count)
                self._write(window.log, entry, key.caller)

    def syncer(self) -> Callable[[], None]:
        """Return a function that syncs everything written so far; any thread may call it."""
        syncers = [log.syncer() for log in self._budgets if log.is_dirty]

        def sync() -> None:
            for each in syncers:
                each()

        return sync

    def close(self) -> None:
        """Write all counts, and sync and close both logs."""
        self._close(self._windows)
        for log in self._budgets:
            log.close()


def _identity(entry: AuditEntry) -> str:
    """Return a digest of who repeats what: every member but the process and the outcome. Pure."""
    same = msgspec.structs.replace(entry, pid=0, status=0, error="")
    return sha256(repr(same).encode()).hexdigest()  # repr escapes what is not Unicode
