"""Wheels of the packages of distributions: pip selects those of ``requirements/platforms``.

``scripts/setup --download`` reads the same file, so its directory has wheels for packages too.
"""

from __future__ import annotations

import os
from pathlib import Path

PLATFORMS = Path(__file__).resolve().parent.parent / "requirements/platforms"


def pip_options(python_version: str) -> list[str]:
    """Return the options of pip that select the wheels for a version of Python."""
    lines = PLATFORMS.read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if not line.startswith("#")]
    machine = os.uname().machine
    platforms = [f"--platform={name}_{machine}" for name in names]
    return ["--only-binary=:all:", f"--python-version={python_version}", *platforms]
