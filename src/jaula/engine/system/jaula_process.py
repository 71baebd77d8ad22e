"""How the engine runs a command of jaula itself, in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jaula

_KEPT = ("JAULA_ROOTLESS",)  # variables of the engine for its children; of jaula.rootless.xdg_paths


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module of this program. Pure."""
    return [sys.executable, "-s", "-P", "-X", "utf8", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return the environment of a child: the import path, and no address of another engine.

    The uid of a rootless engine stays: checks judge its containers by what such an engine can do.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DOCKER_", "JAULA_")) or name in _KEPT
    }
    root = str(Path(jaula.__file__).resolve().parents[1])
    return kept | {"PYTHONPATH": os.pathsep.join(dict.fromkeys([root, *filter(None, sys.path)]))}
