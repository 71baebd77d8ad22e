"""The host's package tools: apt-get, dpkg and mmdebstrap as programs.

Programs are run with a fixed environment and without a shell; what they say is shown when they
fail.
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
    """The program's path; raises :class:`Unavailable`, naming the Debian package that has it."""
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
    """Run a program; its output. Raises :class:`Unavailable` with its last words where it fails."""
    plain = {"PATH": _PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    plain |= {name: os.environ[name] for name in _PROXIES if name in os.environ}
    plain |= environment or {}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=plain, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise Unavailable(f"{what} failed: {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise Unavailable(f"{what} failed: {_last_words(done.stderr or done.stdout)}", hint=hint)
    return done.stdout.decode(errors="replace")


def _last_words(output: bytes) -> str:
    """The lines that say what went wrong, at most three."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("E:", "Err:", "error"))]
    return "; ".join((telling or lines)[-3:])[:1000] or "the program said nothing"
