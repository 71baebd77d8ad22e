"""Packages of clients, installed once for this clone below ``.venv``."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

from harness.engine import PROJECT

_TIMEOUT = 600  # seconds


def npm(directory: str, package: str) -> Path:
    """Install a package of npm and return its ``node_modules``; no script of a package runs."""
    words = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock")
    return _install(directory, package, [[*words, package]]) / "node_modules"


def pip(directory: str, *packages: str) -> Path:
    """Install packages of PyPI in an environment of their own and return its ``bin``."""
    words = ("bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    create = [sys.executable, "-m", "venv", "."]
    return _install(directory, " ".join(packages), [create, [*words, *packages]]) / "bin"


def _install(directory: str, packages: str, commands: list[list[str]]) -> Path:
    """Run the commands in the directory, unless these packages are there."""
    place = PROJECT / ".venv" / directory
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = place / "installed"
        if not stamp.exists() or stamp.read_text() != packages:
            for words in commands:
                subprocess.run(words, cwd=place, check=True, timeout=_TIMEOUT)
            stamp.write_text(packages)
    return place
