"""The tree of a layer from its TOC."""

from __future__ import annotations

import io
import stat
from typing import Any

import pytest

from jaula.errors import InvalidRequest
from jaula.features.lazy.metadata import LayerMetadata, layout, write_image
from jaula.images.registry.toc import Chunk, EntryType, File, Toc, TocFormat
from jaula.storage.trees import opaque_xattr

DIGEST = "sha256:" + "a" * 64


def file(path: bytes, type: EntryType = EntryType.REGULAR, size: int = 0, **more: Any) -> File:
    chunks = (Chunk(10, 20, 0, size, DIGEST),) if size else ()
    whole = File(path, type, 0o644, 1, 2, 3, size, b"", (0, 0), {}, chunks)
    return whole._replace(**more)


def tree(*files: File) -> LayerMetadata:
    return layout(Toc(TocFormat.ESTARGZ, list(files), 1000, 0))


def by_path(metadata: LayerMetadata) -> dict[bytes, Any]:
    return {entry.path: entry for entry in metadata.entries}


def test_each_file_begins_a_block_of_the_device() -> None:
    metadata = tree(file(b"a", size=5000), file(b"b"), file(b"c", size=1))
    entries = by_path(metadata)
    assert entries[b"a"].chunks == (0,)
    assert not entries[b"b"].chunks
    assert entries[b"c"].chunks == (8192,)
    assert [extent.offset for extent in metadata.extents] == [0, 8192]
    assert (metadata.device_size, metadata.size) == (12288, 5001)


def test_directories_without_an_entry_are_made() -> None:
    entries = by_path(tree(file(b"a/b/c", size=1)))
    assert set(entries) == {b"", b"a", b"a/b", b"a/b/c"}
    assert entries[b"a"].mode == stat.S_IFDIR | 0o755


def test_states_root_says_whether_the_root_has_an_entry() -> None:
    assert not tree(file(b"a", size=1)).states_root
    assert tree(file(b"", EntryType.DIRECTORY)).states_root


def test_a_whiteout_is_a_device_and_never_hides_a_file_of_its_layer() -> None:
    entries = by_path(tree(file(b"d/.wh.gone"), file(b"kept"), file(b".wh.kept")))
    assert entries[b"d/gone"].mode == stat.S_IFCHR
    assert stat.S_ISREG(entries[b"kept"].mode)
    assert b"d/.wh.gone" not in entries


def test_an_opaque_directory_has_the_attribute_of_overlayfs() -> None:
    directory = EntryType.DIRECTORY
    entries = by_path(
        tree(file(b"d", directory), file(b"d/.wh..wh..opq"), file(b"e", directory), file(b".wh.e"))
    )
    assert entries[b"d"].xattrs == {opaque_xattr(): b"y"}
    assert entries[b"e"].xattrs == {opaque_xattr(): b"y"}


def test_attributes_that_the_host_would_interpret_are_dropped() -> None:
    attributes = {
        "user.note": b"x",
        "security.capability": b"c",
        "trusted.overlay.opaque": b"y",
        "trusted.overlay.redirect": b"/etc",
        "user.overlay.opaque": b"y",
        "security.selinux": b"t",
        "strange": b"z",
    }
    entries = by_path(tree(file(b"a", xattrs=attributes)))
    assert set(entries[b"a"].xattrs) == {"user.note", "security.capability"}


def test_a_hard_link_to_a_hard_link_is_one_to_the_file() -> None:
    link = EntryType.HARD_LINK
    entries = by_path(
        tree(file(b"a", size=1), file(b"b", link, link=b"a"), file(b"c", link, link=b"b"))
    )
    assert entries[b"c"].hard_link == b"a"


@pytest.mark.parametrize(
    "files",
    [
        (file(b"a", size=1), file(b"a/b", size=1)),
        (file(b"a", EntryType.HARD_LINK, link=b"b"), file(b"b", EntryType.HARD_LINK, link=b"a")),
        (file(b"a", EntryType.HARD_LINK, link=b"missing"),),
        (file(b"d", EntryType.DIRECTORY), file(b"a", EntryType.HARD_LINK, link=b"d")),
        (file(b"a"), file(b"a/.wh..wh..opq")),
        (file(b".wh."),),
        (file(b".wh..."),),
        (file(b"", EntryType.SYMLINK, link=b"x"),),
    ],
)
def test_entries_that_are_no_tree_are_refused(files: tuple[File, ...]) -> None:
    with pytest.raises(InvalidRequest):
        write_image(tree(*files), io.BytesIO())
