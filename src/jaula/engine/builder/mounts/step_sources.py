"""Where the mounts of steps are attached: a directory for each step, below the engine's ``run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.config import Paths


def places(paths: Paths) -> Path:
    """Where the mounts of all steps are attached."""
    return paths.run / "builds"


def step_places(paths: Paths) -> tuple[Path, ...]:
    """The directories of steps that are there."""
    try:
        return tuple(places(paths).iterdir())
    except FileNotFoundError:
        return ()


def remove_places(directory: Path) -> None:
    """Remove what mounts were attached to: empty files and directories, nothing else."""
    try:
        found = tuple(directory.iterdir())
    except FileNotFoundError:
        return
    for place in found:
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink()
    directory.rmdir()
