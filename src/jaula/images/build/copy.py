"""One ``COPY`` or ``ADD``: what it takes, the digest of it, and the copy.

Whoever executes a build calls :func:`take` with an instruction whose variables are replaced, asks
for the digest to look into the cache, and copies where the cache had nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from jaula.errors import InvalidRequest
from jaula.images.build import add_archive, chmod, select
from jaula.images.build.copy_target import CopyTarget, place
from jaula.images.build.digest import digest
from jaula.images.build.dockerfile.ast import Add, Copy
from jaula.images.build.errors import explained
from jaula.images.build.remote import git_url
from jaula.images.build.sources import File, Source, Text, Tree

if TYPE_CHECKING:
    from jaula.images.registry.cancellation import Cancellation


class Remotes(Protocol):
    """What an ``ADD`` of something elsewhere needs; :mod:`~jaula.images.build.remote.remote` has it."""

    def file(self, url: str, checksum: str) -> File:
        """Fetch a file; raises where the ``checksum`` (``sha256:...``, or '') is another."""

    def repository(self, url: str, checksum: str, *, keep_git_dir: bool) -> Source:
        """Fetch a commit of a git repository; ``checksum`` is what its name begins with."""


class CopyOperation:
    """The sources of one instruction. ``unmatched`` are patterns that found nothing."""

    def __init__(
        self,
        instruction: Copy | Add,
        sources: Sequence[Source],
        unmatched: Sequence[str],
        cancel: Cancellation | None,
    ) -> None:
        self.sources = tuple(sources)
        self.unmatched = tuple(unmatched)
        self._target = instruction.target
        self._mode = chmod.parse(instruction.chmod) if instruction.chmod else None
        self._cancel = cancel

    @explained("what is to be copied cannot be read")
    def digest(self) -> str:
        """``sha256:...`` of what is taken; the instruction's own text is not in it."""
        return digest(self.sources, self._cancel)

    def place(self, root: int, workdir: str, owner: tuple[int, int] | None) -> None:
        """Copy below ``root``, a descriptor of a root directory that is written to.

        ``workdir`` is what a relative target is relative to; ``owner`` is what ``--chown`` means
        there, None without it. For ``--link`` the root is an empty directory.
        """
        place(
            self.sources,
            root,
            CopyTarget(self._target, workdir),
            owner=owner,
            mode=self._mode,
            cancel=self._cancel,
        )


@explained("what is to be copied cannot be had")
def take(
    instruction: Copy | Add,
    tree: Tree | None,
    remotes: Remotes | None = None,
    cancel: Cancellation | None = None,
) -> CopyOperation:
    """Find what an instruction takes; what is elsewhere is fetched now.

    ``tree`` is the build's context, or what ``--from`` names; None where there is no context.

    :raises NotFound: a source that is not there.
    :raises InvalidRequest: a source that cannot be used.
    """
    sources: list[Source] = []
    unmatched: list[str] = []
    excludes = select.excluding(instruction.excludes)
    for text in instruction.sources:
        if isinstance(instruction, Add) and _is_elsewhere(text):
            if remotes is None:
                raise InvalidRequest(f"{text!r} cannot be fetched: nothing is fetched here")
            sources.append(_fetched(instruction, text, remotes))
            continue
        if isinstance(instruction, Add) and instruction.checksum:
            raise InvalidRequest(f"--checksum is for what is fetched, and {text!r} is not")
        if tree is None:
            raise InvalidRequest(
                f"there is no build context that {text!r} could be in",
                hint="give a directory instead of a Dockerfile alone",
            )
        inside = isinstance(instruction, Copy) and instruction.parents
        found = (select.select_inside if inside else select.select)(tree, text, excludes)
        if not found:
            unmatched.append(text)
        if isinstance(instruction, Add):
            found = [_unpacked(source, instruction.unpack) for source in found]
        sources += found
    sources += [Text(h.name.encode(), h.content.encode()) for h in instruction.heredocs]
    return CopyOperation(instruction, sources, unmatched, cancel)


def _is_elsewhere(text: str) -> bool:
    return text.startswith(("http://", "https://")) or git_url.is_git(text)


def _fetched(instruction: Add, text: str, remotes: Remotes) -> Source:
    if git_url.is_git(text):
        return remotes.repository(text, instruction.checksum, keep_git_dir=instruction.keep_git_dir)
    file = remotes.file(text, instruction.checksum)
    if not file.name and CopyTarget(instruction.target, "/").directory:
        raise InvalidRequest(
            f"{text!r} has no file name that could be used", hint="name the file in the target"
        )
    return _unpacked(file, bool(instruction.unpack))


def _unpacked(source: Source, unpack: bool | None) -> Source:
    """The content of an archive where it is to be unpacked."""
    if unpack is not False and isinstance(source, File) and add_archive.is_packed(source):
        return add_archive.PackedArchive(source)
    return source
