"""``exec --cgroup``: existing cgroups below the container's own that a process is created in.

Follows runc's flag: ``[CONTROLLER[,CONTROLLER...]:]PATH``, and without a controller once, for every
hierarchy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NoReturn

from jaula.errors import InvalidRequest, NotFound
from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.runtime.interfaces import Cgroup

_RESOLVE = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_MAGICLINKS


class SubCgroup:
    """The cgroups of one process: ``paths`` are by controller, relative to the container's.

    ``""`` is every hierarchy. It has the two methods of a cgroup that a clone takes.
    """

    def __init__(self, cgroup: Cgroup, paths: Mapping[str, str]) -> None:
        self._unified = cgroup.directory_fd()
        self._locations = cgroup.locations()
        self._paths = dict(paths)
        self._opened = -1

    def __enter__(self) -> SubCgroup:
        unknown = sorted(self._paths.keys() - {*self._locations, ""})
        if unknown:
            raise InvalidRequest(f"--cgroup: the container has no controller {unknown[0]!r}")
        if self._unified is not None:
            location = self._locations.get("", "")
            self._opened = _open_below(self._unified, self._path(location))
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened >= 0:
            os.close(self._opened)

    def directory_fd(self) -> int | None:
        """Return the v2 directory, if there is one."""
        return self._opened if self._unified is not None else None

    def open_attach_fds(self, *, cloned: bool = False) -> tuple[int, ...]:
        """Return a descriptor for each v1 hierarchy that moves the writing thread into it."""
        opened: list[int] = []
        try:
            for location in dict.fromkeys(self._locations.values()):
                controller = next(c for c in self._locations if self._locations[c] == location)
                if cloned and location == self._locations.get(""):
                    continue
                top = os.open(location, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    directory = _open_below(top, self._path(location))
                finally:
                    os.close(top)
                try:
                    file = "tasks" if controller else "cgroup.procs"
                    opened.append(os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory))
                finally:
                    os.close(directory)
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        return tuple(opened)

    def _path(self, location: str) -> str:
        """Return the path in one hierarchy: of a controller in it, or of every one, or ``.``."""
        own = [name for name, place in self._locations.items() if place == location and name]
        return next((self._paths[c] for c in own if c in self._paths), self._paths.get("", "."))


def parse(words: Sequence[str]) -> dict[str, str]:
    """Return the paths by controller; ``""`` is every hierarchy.

    :raises InvalidRequest: when a word is malformed, or names a controller again.
    """
    paths: dict[str, str] = {}
    for word in words:
        controllers, separator, path = word.partition(":")
        if not separator:
            controllers, path = "", word
            if len(words) > 1:
                _refuse(word, "a controller is missing")
        if not path.strip("/"):
            _refuse(word, "the path is missing")
        for controller in controllers.split(","):
            if separator and not controller:
                _refuse(word, "a controller is missing")
            if controller in paths:
                _refuse(word, f"{controller} is specified twice")
            paths[controller] = path.strip("/")
    return paths


def _refuse(word: str, reason: str) -> NoReturn:
    raise InvalidRequest(f"--cgroup {word!r}: {reason}", hint="[CONTROLLER[,...]:]PATH")


def _open_below(directory: int, path: str) -> int:
    """Open an existing cgroup below another.

    :raises NotFound: when it does not exist.
    :raises InvalidRequest: when the path leads out.
    """
    try:
        return openat2(
            directory, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, resolve=_RESOLVE
        )
    except FileNotFoundError:
        raise NotFound(f"--cgroup: the container has no cgroup {path}") from None
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InvalidRequest(f"--cgroup: {path}: {reason}") from None
