"""The layout's ``index.json``: which images there are, and their names.

Source: opencontainers/image-spec 1.1 ``image-index.md`` and ``annotations.md``. One descriptor for
each name of an image, the name in the annotation ``org.opencontainers.image.ref.name`` in its
familiar form (``busybox:latest``), so that ``skopeo inspect oci:DIRECTORY:busybox:latest`` finds
it; one descriptor without a name for an image that has none. A name with a digest in place of the
tag (``user/app@sha256:...``) says under which digest a registry has the image.

The file is the truth. It is written to a temporary name and renamed; the copy in memory is replaced
as a whole, so readers need no lock.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Collection, Iterable
from pathlib import Path

from jaula.errors import CorruptState, InvalidRequest, Unavailable
from jaula.spec.image import MANIFEST, REF_NAME, Descriptor, Index, Layout, decode, encode


class NameIndex:
    """Manifests and their names. ``names`` maps a familiar reference to a manifest digest."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "index.json"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout = directory / "oci-layout"
        if not layout.exists():
            _write(layout, encode(Layout()))
        self.descriptors: tuple[Descriptor, ...] = self._load()
        self.names: dict[str, str] = _names(self.descriptors)
        self._names_of = _by_manifest(self.names)

    def _load(self) -> tuple[Descriptor, ...]:
        try:
            return decode(self._file.read_bytes(), Index, str(self._file)).manifests
        except FileNotFoundError:
            return ()
        except InvalidRequest as error:
            raise CorruptState(
                f"the index of images is damaged: {error.message}",
                hint="restore it, or move the images directory away and load the images again",
            ) from error

    def manifests(self) -> tuple[str, ...]:
        """Return the digests of all manifests, in the order in which they were added."""
        return tuple(dict.fromkeys(descriptor.digest for descriptor in self.descriptors))

    def names_of(self, manifest: str) -> tuple[str, ...]:
        return self._names_of.get(manifest, ())

    def media_type(self, manifest: str) -> str:
        """Return the media type of a manifest, OCI's if the index does not list it."""
        for descriptor in self.descriptors:
            if descriptor.digest == manifest:
                return descriptor.media_type
        return MANIFEST

    def sweep(self) -> list[str]:
        """Remove temporary files that a crash left. Call this before anything is written."""
        partial = list(self._file.parent.glob(f"{self._file.name}.*"))
        for path in partial:
            path.unlink()
        return [path.name for path in partial]

    def set(
        self, manifest: str, size: int, names: Iterable[str], media_type: str | None = None
    ) -> None:
        """Add names to ``manifest``, of ``size`` bytes. An image that had such a name loses it."""
        added = set(names)
        kind = media_type or self.media_type(manifest)
        if self._is_current(manifest, size, added, kind):
            return
        kept = [d for d in self.descriptors if d.annotations.get(REF_NAME) not in added]
        named = [
            Descriptor(kind, manifest, size, annotations={REF_NAME: name}) for name in sorted(added)
        ]
        self._replace(kept + named, Descriptor(kind, manifest, size))

    def _is_current(self, manifest: str, size: int, names: Collection[str], kind: str) -> bool:
        """Return whether nothing would change. A needless write would wait for the disk."""
        listed = [d for d in self.descriptors if d.digest == manifest]
        same = listed and all((d.size, d.media_type) == (size, kind) for d in listed)
        return bool(same) and all(self.names.get(name) == manifest for name in names)

    def unset(self, names: Collection[str]) -> None:
        """Remove names. The images stay."""
        self._replace([d for d in self.descriptors if d.annotations.get(REF_NAME) not in names])

    def drop(self, manifests: Collection[str]) -> None:
        """Remove manifests with all their names."""
        self._store(tuple(d for d in self.descriptors if d.digest not in manifests))

    def _replace(self, descriptors: list[Descriptor], added: Descriptor | None = None) -> None:
        """Store ``descriptors``. Manifests listed before stay listed, if necessary without a name."""
        listed = {d.digest: Descriptor(d.media_type, d.digest, d.size) for d in self.descriptors}
        if added is not None:
            listed[added.digest] = added
        named = {d.digest for d in descriptors if REF_NAME in d.annotations}
        plain = [descriptor for digest, descriptor in listed.items() if digest not in named]
        self._store(tuple([d for d in descriptors if REF_NAME in d.annotations] + plain))

    def _store(self, descriptors: tuple[Descriptor, ...]) -> None:
        _write(self._file, encode(Index(manifests=descriptors)))
        self.descriptors = descriptors
        self.names = _names(descriptors)
        self._names_of = _by_manifest(self.names)


def _names(descriptors: tuple[Descriptor, ...]) -> dict[str, str]:
    return {d.annotations[REF_NAME]: d.digest for d in descriptors if REF_NAME in d.annotations}


def _by_manifest(names: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the sorted names of each manifest, so that a lookup does not scan all names."""
    names_of: dict[str, tuple[str, ...]] = {}
    for name in sorted(names):
        names_of[names[name]] = (*names_of.get(names[name], ()), name)
    return names_of


def _write(path: Path, data: bytes) -> None:
    """Replace a file atomically, synced before the rename: names cannot be recovered."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise Unavailable(f"cannot write {path}: {error.strerror}") from error
        raise
