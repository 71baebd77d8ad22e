"""A build context and a target root on disk, and handmade instructions."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from jaula.features.build.files.copy_files import prepare
from jaula.features.build.files.source_archives import Tree
from jaula.images.dockerfile.ast import Add, Copy, Location

LOCATION = Location(1, 1)


def make(root: Path, files: Mapping[str, str | None]) -> None:
    """Create files by path and content.

    A path with a trailing slash is a directory. The content ``-> x`` makes a link to ``x``.
    """
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            place.mkdir(exist_ok=True)
        elif content is not None and content.startswith("-> "):
            place.symlink_to(content[3:])
        else:
            place.write_text(content or "")


def listed(root: Path) -> dict[str, str]:
    """Return every path below ``root`` with ``mode uid:gid content``."""
    result = {}
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            place = Path(folder, name)
            facts = place.lstat()
            where = str(place.relative_to(root))
            reported = f"{stat.S_IMODE(facts.st_mode):o} {facts.st_uid}:{facts.st_gid}"
            if stat.S_ISLNK(facts.st_mode):
                result[where] = f"-> {place.readlink()}"
            elif stat.S_ISREG(facts.st_mode):
                result[where] = f"{reported} {place.read_bytes().decode(errors='replace')}"
            else:
                result[where + ("/" if stat.S_ISDIR(facts.st_mode) else "")] = reported
    return result


class CopyContext:
    """A context and a root to copy to; ``copy`` and ``add`` are the instructions."""

    def __init__(self, top: Path, stack: ExitStack) -> None:
        self.context = top / "context"
        self.root = top / "root"
        self._stack = stack
        self.context.mkdir()
        self.root.mkdir()

    def opened(self, path: Path) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._stack.callback(os.close, descriptor)
        return descriptor

    def tree(self, *, keeps_owners: bool = False) -> Tree:
        return Tree(self.opened(self.context), keeps_owners=keeps_owners)

    def copy(
        self,
        *sources: str,
        to: str,
        workdir: str = "/",
        owner: tuple[int, int] | None = None,
        keeps_owners: bool = False,
        **options: object,
    ) -> dict[str, str]:
        """Copy, and return the content of the root."""
        instruction = Copy(LOCATION, "COPY", sources, to, **options)  # type: ignore[arg-type]
        taking = prepare(instruction, self.tree(keeps_owners=keeps_owners))
        taking.digest()
        taking.copy_to(self.opened(self.root), workdir, owner)
        return listed(self.root)

    def copy_unlisted(self, source: str, to: str) -> None:
        """Copy into a root that changes meanwhile."""
        instruction = Copy(LOCATION, "COPY", (source,), to)
        prepare(instruction, self.tree()).copy_to(self.opened(self.root), "/", None)

    def add(
        self, *sources: str, to: str, owner: tuple[int, int] | None = None, **options: object
    ) -> dict[str, str]:
        instruction = Add(LOCATION, "ADD", sources, to, **options)  # type: ignore[arg-type]
        taking = prepare(instruction, self.tree())
        taking.digest()
        taking.copy_to(self.opened(self.root), "/", owner)
        return listed(self.root)

    def digest(self, *sources: str, **options: object) -> str:
        instruction = Copy(LOCATION, "COPY", sources, "/", **options)  # type: ignore[arg-type]
        return prepare(instruction, self.tree()).digest()
