"""The host's package tools: apt-get, dpkg and mmdebstrap as programs.

Programs run with a fixed environment and without a shell. The end of their output is part of the
error if they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaula.errors import Unavailable

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def find(program: str, package: str) -> str:
    """Return the path of a program.

    :raises Unavailable: if it is not installed; the hint names the Debian package.
    """
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise Unavailable(f"{program} is not installed", hint=f"apt-get install {package}")
    return path


def run(
    command: Sequence[str],
    *,
    what: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    hint: str | None = None,
) -> str:
    """Run a program and return its output. ``what`` describes the step in errors.

    :raises Unavailable: if the program fails, with the end of its output.
    """
    plain = {"PATH": _PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    plain |= {name: os.environ[name] for name in _PROXIES if name in os.environ}
    plain |= environment or {}
    try:
        result = subprocess.run(
            command, cwd=cwd, env=plain, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise Unavailable(f"{what} failed: {command[0]}: {error.strerror}") from error
    if result.returncode:
        reason = _error_lines(result.stderr or result.stdout)
        raise Unavailable(f"{what} failed: {reason}", hint=hint)
    return result.stdout.decode(errors="replace")


def _error_lines(output: bytes) -> str:
    """Return the lines that report the error, at most three."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "Err:", "error"))]
    return "; ".join((errors or lines)[-3:])[:1000] or "the program printed nothing"
