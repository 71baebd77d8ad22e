"""The program: its arguments, environment, working directory and limits.

Source: Docker's ``oci_linux.go`` (``withCommonOptions``, ``CreateDaemonEnvironment``) for the
environment that images expect; statement I1 for working directories.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

from jaula.engine.oci_spec.inputs import UserFacts
from jaula.errors import InvalidRequest
from jaula.spec.api import ContainerCreate

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def arguments(body: ContainerCreate) -> tuple[str, ...]:
    """Entry point and command, joined.

    :raises InvalidRequest: there is neither.
    """
    joined = (*(body.entrypoint or ()), *(body.cmd or ()))
    if not joined or not joined[0]:
        raise InvalidRequest(
            "no command specified", hint="the image names none; write one after the image's name"
        )
    if any("\0" in argument for argument in joined):
        raise InvalidRequest("an argument holds a NUL byte")
    return joined


def merge_environment(base: Iterable[str], over: Iterable[str]) -> tuple[str, ...]:
    """``NAME=value`` entries of ``over`` replace those of ``base``; ``NAME`` alone removes one."""
    merged: dict[str, str] = {}
    for entry in (*base, *over):
        name, equals, _ = entry.partition("=")
        if not name or "\0" in entry:
            raise InvalidRequest(f"invalid environment variable: {entry!r}")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return tuple(merged.values())


def environment(
    env: Sequence[str], *, hostname: str, tty: bool, user: UserFacts
) -> tuple[str, ...]:
    """What the program sees: the engine's variables, then the image's and the user's."""
    base = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={hostname}"]
    if tty:
        base.append("TERM=xterm")
    merged = merge_environment(base, env)
    if not any(entry.startswith("HOME=") for entry in merged):
        merged = (*merged, f"HOME={user.home or '/'}")
    return merged


def working_directory(text: str) -> str:
    """An absolute, normalised path; empty means the root.

    :raises InvalidRequest: relative, or a way out of the container (statement I1).
    """
    if not text:
        return "/"
    if not text.startswith("/"):
        raise InvalidRequest(
            f"the working directory '{text}' is invalid, it needs to be an absolute path"
        )
    if "\0" in text:
        raise InvalidRequest("the working directory holds a NUL byte")
    path = posixpath.normpath(text)
    path = "/" + path.lstrip("/")
    parts = path.split("/")
    if parts[1] == "proc" and "fd" in parts[2:]:
        raise InvalidRequest(
            f"the working directory '{text}' is refused: it leads through file descriptors"
        )
    return path
