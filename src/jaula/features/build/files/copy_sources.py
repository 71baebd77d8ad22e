"""Resolve the sources of ``COPY`` and ``ADD`` in a tree.

Follows the Dockerfile reference, and BuildKit where it is silent. Every path is relative to the
root of the tree. A symbolic link that a source names is followed, and the copy has the link's name.
A pattern without a match is not an error; a missing plain name is.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence

from jaula.errors import InvalidRequest, NotFound
from jaula.features.build.files import wildcard
from jaula.features.build.files.copied_directory import DirectorySource, Keep, SubdirectorySource
from jaula.features.build.files.dockerignore import Dockerignore
from jaula.features.build.files.file_errno import quote_path
from jaula.features.build.files.source_archives import File, Source, Tree
from jaula.kernel import openat2
from jaula.storage.trees import walk

Excludes = Callable[[str], bool]
"""Return whether a relative path, without leading and trailing slash, is excluded."""


def select(tree: Tree, text: str, excludes: Excludes | None = None) -> list[Source]:
    """Return the sources that one argument of an instruction names, empty for an unmatched pattern.

    :raises NotFound: if a plain name does not exist.
    :raises InvalidRequest: if a pattern is malformed or a path cannot be resolved.
    """
    path = posixpath.normpath("/" + text).lstrip("/")
    names = path.split("/")
    first = next((i for i, name in enumerate(names) if wildcard.is_pattern(name)), len(names))
    base = "/".join(wildcard.plain(name) for name in names[:first])
    if first == len(names):
        return _one(tree, base, text, excludes)
    sources: list[Source] = []
    with_base = posixpath.join(base, "") if base else ""
    for match in _matches(tree, base, tuple(names[first:]), text, deep=False):
        sources += _one(tree, with_base + match, text, excludes)
    return sources


def select_with_parents(tree: Tree, text: str, excludes: Excludes | None = None) -> list[Source]:
    """Return the sources as :func:`select` does, with parent directories (``--parents``).

    The parents start after a ``/./`` in the path.
    """
    base_text, pivot, below = text.partition("/./")
    if not pivot:
        base_text, below = "", text
    base = wildcard.plain(posixpath.normpath("/" + base_text).lstrip("/"))
    path = posixpath.normpath("/" + below).lstrip("/")
    if not path:
        return _one(tree, base, text, excludes)
    names = tuple(path.split("/"))
    matches = [os.fsencode(match) for match in _matches(tree, base, names, text, deep=True)]
    if not matches:
        if not any(wildcard.is_pattern(name) for name in names):
            raise _not_found(tree, text)
        return []
    keep = _keep("", excludes)
    if keep is not None:
        matches = [match for match in matches if keep(match)]
    return (
        [SubdirectorySource(tree, os.fsencode(base), keep, paths=tuple(matches))] if matches else []
    )


def _one(tree: Tree, path: str, text: str, excludes: Excludes | None) -> list[Source]:
    """Return the source at a path, links followed."""
    name = posixpath.basename(path)
    try:
        fd = openat2.open_in_root(tree.root, path or ".", os.O_PATH)
    except OSError as error:
        raise _open_error(tree, text, error) from None
    try:
        directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
    raw = os.fsencode(path)
    if directory:
        return [DirectorySource(tree, raw, _keep(path, excludes), os.fsencode(name))]
    if excludes is not None and (excludes(path) or excludes(name)):
        return []
    return [File(tree, raw, os.fsencode(name))]


def _keep(path: str, excludes: Excludes | None) -> Keep | None:
    """Return the filter of ``--exclude`` below ``path``.

    A pattern matches the path in the tree or the one relative to ``path``.
    """
    if excludes is None:
        return None

    def keep(inner: bytes) -> bool:
        text = os.fsdecode(inner)
        return not (excludes(text) or (path and excludes(f"{path}/{text}")))

    return keep


def _matches(
    tree: Tree, base: str, names: tuple[str, ...], text: str, *, deep: bool
) -> Iterator[str]:
    """Yield the paths below ``base`` that match. A matching directory is not descended into."""
    full_pattern = wildcard.paths(names, deep=deep)
    fixed = len(names)  # components that select the directories to read
    if deep and wildcard.ANY_DEPTH in names:
        fixed = names.index(wildcard.ANY_DEPTH)
    steps = [wildcard.paths((name,)) for name in names[:fixed]]
    try:
        root = openat2.open_in_root(tree.root, base or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _open_error(tree, text, error) from None
    try:
        for below, _, entries in walk(root):
            depth = below.count(b"/") + 1 if below else 0
            following = []
            for name, status in entries:
                decoded = os.fsdecode(name)
                if depth < fixed and not steps[depth].fullmatch(decoded):
                    continue
                path = f"{os.fsdecode(below)}/{decoded}" if below else decoded
                if full_pattern.fullmatch(path):
                    yield path
                elif stat.S_ISDIR(status.st_mode) and (depth + 1 < fixed or fixed < len(names)):
                    following.append((name, status))
            entries[:] = following
    finally:
        os.close(root)


def exclude_filter(patterns: Sequence[str]) -> Excludes | None:
    """Return the filter of ``--exclude`` patterns, or None without patterns."""
    if not patterns:
        return None
    return Dockerignore(patterns).excludes_path


def _not_found(tree: Tree, text: str) -> NotFound:
    return NotFound(f"{quote_path(text)} is not in {tree.title}", hint=_hint(tree))


def _hint(tree: Tree) -> str | None:
    if tree.keeps_owners:
        return None
    return "paths are relative to the root of the context, and .dockerignore excludes files"


def _open_error(tree: Tree, text: str, error: OSError) -> InvalidRequest | NotFound:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return _not_found(tree, text)
    if error.errno == errno.ELOOP:
        return InvalidRequest(f"{quote_path(text)} in {tree.title} is a symbolic link loop")
    return InvalidRequest(f"{quote_path(text)} in {tree.title} cannot be opened: {error.strerror}")
