"""What the sources of ``COPY`` and ``ADD`` are in a tree.

Follows the Dockerfile reference and what BuildKit does where it is silent: a path is below the
tree's root whatever it begins with; a link that a source names is followed, and what is taken has
the link's name; a pattern that finds nothing is no error, a plain name is.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence

from jaula.errors import InvalidRequest, NotFound
from jaula.images.build import wildcard
from jaula.images.build.directory import DirectorySource, Keep, SubdirectorySource
from jaula.images.build.dockerignore import Dockerignore
from jaula.images.build.errors import shown
from jaula.images.build.sources import File, Source, Tree
from jaula.kernel import paths
from jaula.storage.trees import walk

Excludes = Callable[[str], bool]
"""Whether a path, relative and without a slash at either end, is left out."""


def select(tree: Tree, text: str, excludes: Excludes | None = None) -> list[Source]:
    """What one source of an instruction means; nothing for a pattern without a match.

    :raises NotFound: a plain name that is not there.
    :raises InvalidRequest: a pattern that is none, a path that cannot be followed.
    """
    path = posixpath.normpath("/" + text).lstrip("/")
    names = path.split("/")
    first = next((i for i, name in enumerate(names) if wildcard.is_pattern(name)), len(names))
    base = "/".join(wildcard.plain(name) for name in names[:first])
    if first == len(names):
        return _one(tree, base, text, excludes)
    found: list[Source] = []
    with_base = posixpath.join(base, "") if base else ""
    for match in _matches(tree, base, tuple(names[first:]), text, deep=False):
        found += _one(tree, with_base + match, text, excludes)
    return found


def select_inside(tree: Tree, text: str, excludes: Excludes | None = None) -> list[Source]:
    """As :func:`select`, with the directories above (``--parents``), down from a ``/./``."""
    above, pivot, below = text.partition("/./")
    if not pivot:
        above, below = "", text
    base = wildcard.plain(posixpath.normpath("/" + above).lstrip("/"))
    path = posixpath.normpath("/" + below).lstrip("/")
    if not path:
        return _one(tree, base, text, excludes)
    names = tuple(path.split("/"))
    found = [os.fsencode(match) for match in _matches(tree, base, names, text, deep=True)]
    if not found:
        if not any(wildcard.is_pattern(name) for name in names):
            raise _missing(tree, text)
        return []
    keep = _keep("", excludes)
    if keep is not None:
        found = [match for match in found if keep(match)]
    return [SubdirectorySource(tree, os.fsencode(base), keep, names=tuple(found))] if found else []


def _one(tree: Tree, path: str, text: str, excludes: Excludes | None) -> list[Source]:
    """What is at a path, links followed."""
    name = posixpath.basename(path)
    try:
        place = paths.open_in_root(tree.root, path or ".", os.O_PATH)
    except OSError as error:
        raise _unreachable(tree, text, error) from None
    try:
        directory = stat.S_ISDIR(os.fstat(place).st_mode)
    finally:
        os.close(place)
    raw = os.fsencode(path)
    if directory:
        return [DirectorySource(tree, raw, _keep(path, excludes), os.fsencode(name))]
    if excludes is not None and (excludes(path) or excludes(name)):
        return []
    return [File(tree, raw, os.fsencode(name))]


def _keep(path: str, excludes: Excludes | None) -> Keep | None:
    """``--exclude`` for what is below ``path``: by its path in the tree, or from there on."""
    if excludes is None:
        return None

    def keep(inner: bytes) -> bool:
        text = os.fsdecode(inner)
        return not (excludes(text) or (path and excludes(f"{path}/{text}")))

    return keep


def _matches(
    tree: Tree, base: str, names: tuple[str, ...], text: str, *, deep: bool
) -> Iterator[str]:
    """Paths below ``base`` that match; of a directory that does, nothing below it is looked at."""
    whole = wildcard.paths(names, deep=deep)
    fixed = len(names)  # so many components say which directories to look into
    if deep and wildcard.ANY_DEPTH in names:
        fixed = names.index(wildcard.ANY_DEPTH)
    steps = [wildcard.paths((name,)) for name in names[:fixed]]
    try:
        root = paths.open_in_root(tree.root, base or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unreachable(tree, text, error) from None
    try:
        for below, _, entries in walk(root):
            depth = below.count(b"/") + 1 if below else 0
            following = []
            for name, facts in entries:
                plain = os.fsdecode(name)
                if depth < fixed and not steps[depth].fullmatch(plain):
                    continue
                path = f"{os.fsdecode(below)}/{plain}" if below else plain
                if whole.fullmatch(path):
                    yield path
                elif stat.S_ISDIR(facts.st_mode) and (depth + 1 < fixed or fixed < len(names)):
                    following.append((name, facts))
            entries[:] = following
    finally:
        os.close(root)


def excluding(patterns: Sequence[str]) -> Excludes | None:
    """What ``--exclude`` says, None where it says nothing."""
    if not patterns:
        return None
    return Dockerignore(patterns).leaves_out


def _missing(tree: Tree, text: str) -> NotFound:
    return NotFound(f"{shown(text)} is not in {tree.title}", hint=_hint(tree))


def _hint(tree: Tree) -> str | None:
    if tree.keeps_owners:
        return None
    return "a path begins at the context's root, and what .dockerignore names is not in it"


def _unreachable(tree: Tree, text: str, error: OSError) -> InvalidRequest | NotFound:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return _missing(tree, text)
    if error.errno == errno.ELOOP:
        return InvalidRequest(f"{shown(text)} in {tree.title} is a link that leads in a circle")
    return InvalidRequest(f"{shown(text)} in {tree.title} cannot be opened: {error.strerror}")
