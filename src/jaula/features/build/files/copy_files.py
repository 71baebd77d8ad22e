"""One ``COPY`` or ``ADD``: its sources, their digest, and the copy.

The builder calls :func:`prepare` with an instruction whose variables are replaced. It uses the
digest for the cache lookup, and copies if the cache has no entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from jaula.errors import InvalidRequest
from jaula.features.build.files import add_archive, chmod
from jaula.features.build.files import copy_sources as source_selection
from jaula.features.build.files.copy_target import CopyTarget, copy_sources
from jaula.features.build.files.digest import digest
from jaula.features.build.files.file_errno import translate_os_errors
from jaula.features.build.files.remote import git_url
from jaula.features.build.files.source_archives import File, Source, Text, Tree
from jaula.images.dockerfile.ast import Add, Copy

if TYPE_CHECKING:
    from jaula.images.registry.cancellation import Cancellation


class Remotes(Protocol):
    """Fetches the remote sources of ``ADD``; see :mod:`.remote.remote`."""

    def file(self, url: str, checksum: str) -> File:
        """Fetch a file whose digest must be ``checksum`` (``sha256:...``, '' for any)."""

    def repository(self, url: str, checksum: str, *, keep_git_dir: bool) -> Source:
        """Fetch a commit of a git repository. ``checksum`` is the prefix of its name."""


class CopyOperation:
    """The sources of one instruction. ``unmatched`` are patterns without a match."""

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

    @translate_os_errors("cannot read the source")
    def digest(self) -> str:
        """Return ``sha256:...`` of the sources. It does not include the text of the instruction."""
        return digest(self.sources, self._cancel)

    def copy_to(self, root: int, workdir: str, owner: tuple[int, int] | None) -> None:
        """Copy into ``root``, a descriptor of a root directory.

        ``workdir`` is the base of a relative target. ``owner`` is the resolved ``--chown``, None
        without it. For ``--link`` the root is an empty directory.
        """
        copy_sources(
            self.sources,
            root,
            CopyTarget(self._target, workdir),
            owner=owner,
            mode=self._mode,
            cancel=self._cancel,
        )


@translate_os_errors("cannot open the source")
def prepare(
    instruction: Copy | Add,
    tree: Tree | None,
    remotes: Remotes | None = None,
    cancel: Cancellation | None = None,
) -> CopyOperation:
    """Resolve the sources of an instruction; remote ones are fetched now.

    ``tree`` is the build context or the stage of ``--from``, None if there is no context.

    :raises NotFound: if a source does not exist.
    :raises InvalidRequest: if a source cannot be used.
    """
    sources: list[Source] = []
    unmatched: list[str] = []
    excludes = source_selection.exclude_filter(instruction.excludes)
    for text in instruction.sources:
        if isinstance(instruction, Add) and _is_remote(text):
            if remotes is None:
                raise InvalidRequest(f"{text!r} cannot be fetched: remote sources are disabled")
            sources.append(_fetch(instruction, text, remotes))
            continue
        if isinstance(instruction, Add) and instruction.checksum:
            raise InvalidRequest(f"--checksum is for remote sources, and {text!r} is not one")
        if tree is None:
            raise InvalidRequest(
                f"cannot copy {text!r}: there is no build context",
                hint="specify a directory instead of a single Dockerfile",
            )
        parents = isinstance(instruction, Copy) and instruction.parents
        selected = (source_selection.select_with_parents if parents else source_selection.select)(
            tree, text, excludes
        )
        if not selected:
            unmatched.append(text)
        if isinstance(instruction, Add):
            selected = [_unpack(source, instruction.unpack) for source in selected]
        sources += selected
    sources += [Text(h.name.encode(), h.content.encode()) for h in instruction.heredocs]
    return CopyOperation(instruction, sources, unmatched, cancel)


def _is_remote(text: str) -> bool:
    return text.startswith(("http://", "https://")) or git_url.is_git(text)


def _fetch(instruction: Add, text: str, remotes: Remotes) -> Source:
    if git_url.is_git(text):
        return remotes.repository(text, instruction.checksum, keep_git_dir=instruction.keep_git_dir)
    file = remotes.file(text, instruction.checksum)
    if not file.name and CopyTarget(instruction.target, "/").directory:
        raise InvalidRequest(
            f"{text!r} does not end with a file name", hint="specify the file name in the target"
        )
    return _unpack(file, bool(instruction.unpack))


def _unpack(source: Source, unpack: bool | None) -> Source:
    """Return the content of ``source`` if it is an archive to be unpacked, else ``source``."""
    if unpack is not False and isinstance(source, File) and add_archive.is_packed(source):
        return add_archive.PackedArchive(source)
    return source
