"""Files of a running container, read below its root and never outside of it."""

from __future__ import annotations

import os
import platform
import stat

import msgspec

from jaula.features.record.record_document import text_of
from jaula.features.why.exec_errors import HEAD, ExecError, ProgramFile, diagnose, opened
from jaula.features.why.explain import FileFacts, OpenedFile
from jaula.features.why.landlock_rules import LandlockRules, locate
from jaula.kernel.openat2 import open_in_root
from jaula.spec.annotations import Ruleset

_MAX_TEXT = 1 << 20  # bytes of a file that is read as text
_TYPES = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}


class ContainerFiles:
    """The files below the root of a process. They stay readable after it has exited."""

    def __init__(self, pid: int, domain: Ruleset | None = None) -> None:
        """Open the root. ``domain`` are the container's Landlock rules.

        :raises OSError: when the process has exited.
        """
        self._root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._rules = LandlockRules(self._root, domain) if domain is not None else None

    def close(self) -> None:
        """Close the root."""
        os.close(self._root)

    def lookup(self, path: str) -> ProgramFile | None:
        """Return a file with its first bytes, None if it does not exist."""
        try:
            found = open_in_root(self._root, path, os.O_PATH | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        try:
            mode = os.fstat(found).st_mode
            head = b""
            if stat.S_ISREG(mode):
                with open(f"/proc/self/fd/{found}", "rb") as file:
                    head = file.read(HEAD)
            return ProgramFile(path, mode, head)
        except OSError:
            return None
        finally:
            os.close(found)

    def text(self, path: str) -> str:
        """Return the text of a file, '' if it cannot be read."""
        try:
            found = open_in_root(self._root, path, os.O_PATH | os.O_CLOEXEC)
        except (OSError, ValueError):
            return ""
        try:
            if not stat.S_ISREG(os.fstat(found).st_mode):
                return ""  # opening a device or a FIFO has effects
            with open(f"/proc/self/fd/{found}", "rb") as file:
                return file.read(_MAX_TEXT).decode("utf-8", "surrogateescape")
        except OSError:
            return ""
        finally:
            os.close(found)

    def _opened(self, path: str) -> OpenedFile | None:
        place = locate(self._root, path)
        if place is None:
            return None
        status = place.status
        rights, linked = self._rules.granted(place) if self._rules is not None else (None, "")
        return OpenedFile(
            path=text_of(os.fsencode(path)),
            target=text_of(os.fsencode(place.path)),
            inode=f"{os.major(status.st_dev)}:{os.minor(status.st_dev)} {status.st_ino}",
            mode=status.st_mode,
            uid=status.st_uid,
            gid=status.st_gid,
            rights=rights,
            hard_link=text_of(os.fsencode(linked)),
        )

    def _absent_file(self, path: str, directory: OpenedFile) -> OpenedFile:
        """Return a file that would have the rights of its directory."""
        target = os.path.join(directory.target, text_of(os.fsencode(os.path.basename(path))))
        return msgspec.structs.replace(
            directory, path=text_of(os.fsencode(path)), target=target, inode=""
        )

    def _closed(self, path: str) -> tuple[OpenedFile, ...]:
        """Return the directories above a file that not every user may search."""
        found = []
        path = os.path.dirname(path)
        while path.rstrip("/"):
            file = self._opened(path)
            if file is not None and not file.mode & stat.S_IXOTH:
                found.append(file)
            path = os.path.dirname(path)
        return tuple(reversed(found))

    def facts(self, path: str, *, execute: bool) -> FileFacts | None:
        """Return the facts of a path, None if it does not exist. ``execute``: as a program too."""
        error = diagnose(path, self.lookup, platform.machine()) if execute else None
        try:
            found = open_in_root(self._root, path, os.O_PATH | os.O_CLOEXEC)
        except (OSError, ValueError):
            return self._absent(path, error)
        try:
            info = os.fstat(found)
        finally:
            os.close(found)
        paths = opened(path, self.lookup) if execute else (path,)
        return file_facts(
            info.st_mode,
            info.st_uid,
            info.st_gid,
            info.st_rdev,
            exec_error=error.reason if error else "",
            exec_advice=error.advice if error else "",
            opened=tuple(file for each in paths if (file := self._opened(each))),
            closed=self._closed(path),
        )

    def _absent(self, path: str, error: ExecError | None) -> FileFacts | None:
        """Return the facts of a file that does not exist: those of its directory."""
        if error is not None:
            return FileFacts(mode=0, exec_error=error.reason, exec_advice=error.advice)
        directory = os.path.dirname(path)
        try:
            found = open_in_root(self._root, directory, os.O_PATH | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        try:
            info = os.fstat(found)
        finally:
            os.close(found)
        return FileFacts(
            mode=info.st_mode,
            uid=info.st_uid,
            gid=info.st_gid,
            directory=text_of(os.fsencode(directory)),
            opened=(self._absent_file(path, above),) if (above := self._opened(directory)) else (),
            closed=self._closed(path),
        )


def file_facts(
    mode: int,
    uid: int,
    gid: int,
    rdev: int,
    *,
    exec_error: str = "",
    exec_advice: str = "",
    opened: tuple[OpenedFile, ...] = (),
    closed: tuple[OpenedFile, ...] = (),
) -> FileFacts:
    """Return the facts of a file from the fields of its status. Pure."""
    kind = _TYPES.get(stat.S_IFMT(mode))
    return FileFacts(
        mode=mode,
        uid=uid,
        gid=gid,
        device=f"{kind} {os.major(rdev)}:{os.minor(rdev)}" if kind else "",
        exec_error=exec_error,
        exec_advice=exec_advice,
        opened=opened,
        closed=closed,
    )
