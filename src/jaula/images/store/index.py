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
from jaula.storage.errors import is_full


class NameIndex:
    """Names and manifests; ``names`` maps a familiar reference to a manifest's digest."""

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
        """Digests of all manifests, in the order in which they came."""
        return tuple(dict.fromkeys(descriptor.digest for descriptor in self.descriptors))

    def names_of(self, manifest: str) -> tuple[str, ...]:
        return self._names_of.get(manifest, ())

    def media_type(self, manifest: str) -> str:
        """What the manifest is; OCI's where the index does not list it."""
        for descriptor in self.descriptors:
            if descriptor.digest == manifest:
                return descriptor.media_type
        return MANIFEST

    def sweep(self) -> list[str]:
        """Remove what a crash left of writing the index; call it before anything is written."""
        found = list(self._file.parent.glob(f"{self._file.name}.*"))
        for half in found:
            half.unlink()
        return [half.name for half in found]

    def set(
        self, manifest: str, size: int, names: Iterable[str], media_type: str | None = None
    ) -> None:
        """Give ``manifest`` more names; another image loses them, and stays without a name."""
        taken = set(names)
        kind = media_type or self.media_type(manifest)
        if self._says(manifest, size, taken, kind):
            return
        kept = [d for d in self.descriptors if d.annotations.get(REF_NAME) not in taken]
        added = [
            Descriptor(kind, manifest, size, annotations={REF_NAME: name}) for name in sorted(taken)
        ]
        self._replace(kept + added, Descriptor(kind, manifest, size))

    def _says(self, manifest: str, size: int, names: Collection[str], kind: str) -> bool:
        """Whether nothing would change: writing waits for the disk."""
        found = [d for d in self.descriptors if d.digest == manifest]
        same = found and all((d.size, d.media_type) == (size, kind) for d in found)
        return bool(same) and all(self.names.get(name) == manifest for name in names)

    def unset(self, names: Collection[str]) -> None:
        """Take names away; the images stay."""
        self._replace([d for d in self.descriptors if d.annotations.get(REF_NAME) not in names])

    def drop(self, manifests: Collection[str]) -> None:
        """Take manifests away, with all their names."""
        self._store(tuple(d for d in self.descriptors if d.digest not in manifests))

    def _replace(self, wanted: list[Descriptor], added: Descriptor | None = None) -> None:
        """Store ``wanted``; whatever was listed before stays listed, without a name if need be."""
        listed = {d.digest: Descriptor(d.media_type, d.digest, d.size) for d in self.descriptors}
        if added is not None:
            listed[added.digest] = added
        named = {d.digest for d in wanted if REF_NAME in d.annotations}
        plain = [descriptor for digest, descriptor in listed.items() if digest not in named]
        self._store(tuple([d for d in wanted if REF_NAME in d.annotations] + plain))

    def _store(self, descriptors: tuple[Descriptor, ...]) -> None:
        _write(self._file, encode(Index(manifests=descriptors)))
        self.descriptors = descriptors
        self.names = _names(descriptors)
        self._names_of = _by_manifest(self.names)


def _names(descriptors: tuple[Descriptor, ...]) -> dict[str, str]:
    return {d.annotations[REF_NAME]: d.digest for d in descriptors if REF_NAME in d.annotations}


def _by_manifest(names: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Sorted names for each manifest, so that looking one up does not depend on their number."""
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(names):
        found[names[name]] = (*found.get(names[name], ()), name)
    return found


def _write(path: Path, data: bytes) -> None:
    """Replace a file as a whole, on the disk before it is seen: names are few and precious."""
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
        if is_full(error) or error.errno == errno.EROFS:
            raise Unavailable(f"cannot write {path}: {error.strerror}") from error
        raise
