"""Files of a running container, read below its root and never outside of it."""

from __future__ import annotations

import os
import platform
import stat

from jaula.kernel.paths import open_in_root
from jaula.record.document import text_of
from jaula.why.exec_errors import HEAD, ExecError, ProgramFile, diagnose
from jaula.why.explain import FileFacts

_TYPES = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}


class ContainerFiles:
    """The files below the root of a process. They stay readable after it has exited."""

    def __init__(self, pid: int) -> None:
        """Open the root.

        :raises OSError: when the process has exited.
        """
        self._root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

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
        return file_facts(
            info.st_mode,
            info.st_uid,
            info.st_gid,
            info.st_rdev,
            exec_error=error.reason if error else "",
            exec_advice=error.advice if error else "",
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
        )


def file_facts(
    mode: int, uid: int, gid: int, rdev: int, *, exec_error: str = "", exec_advice: str = ""
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
    )
