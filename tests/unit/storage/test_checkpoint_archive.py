"""Archives of checkpoints: what is written is read, and a hostile one is refused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from jaula.errors import InvalidRequest
from jaula.features.checkpoint import checkpoint_archive
from jaula.features.checkpoint.checkpoint_archive import ArchiveReader
from jaula.features.checkpoint.checkpoint_store import (
    ROOT_TAR,
    SPEC,
    CheckpointFiles,
    CheckpointStore,
    CheckpointVolume,
    Manifest,
    add_file,
    describe_file,
)

FACTS = Manifest(
    container="c" * 64,
    name="one",
    created=1_700_000_000_000_000_000,
    criu="4.2",
    kernel="6.18",
    architecture="x86_64",
    image="sha256:0",
)
SIGNATURE = b"\x30\x45signature"
NAMES = [
    "manifest.json",
    "manifest.mac",
    "manifest.sig",
    "config.dump",
    "network.status",
    "checkpoint",
    "spec.dump",
    "checkpoint/files.img",
    "checkpoint/pages-1.img",
    "rootfs-diff.tar",
    "volumes/data.tar",
]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


@pytest.fixture
def manifest(store: CheckpointStore) -> Manifest:
    images = store.begin(FACTS.container, FACTS.name)
    (images / "pages-1.img").write_bytes(b"memory" + bytes(1 << 18) + b"end")
    (images / "files.img").write_bytes(b"files")
    (images.parent / SPEC).write_bytes(b"{}")
    for name in (ROOT_TAR, "volume-0.tar"):
        with add_file(images, name) as file:
            file.write(name.encode())
    held = CheckpointFiles(
        volumes=(CheckpointVolume("data", "volume-0.tar"),),
        files=(describe_file(images, ROOT_TAR), describe_file(images, "volume-0.tar")),
    )
    return store.commit(images, msgspec.structs.replace(FACTS, held=held))


@pytest.fixture
def archive(store: CheckpointStore, manifest: Manifest) -> bytes:
    out = io.BytesIO()
    checkpoint = store.images(manifest).parent
    checkpoint_archive.write(checkpoint, manifest, out.write, signature=SIGNATURE)
    return out.getvalue()


def extracted(archive: bytes, manifest: Manifest, target: Path) -> Path:
    reader = ArchiveReader(io.BytesIO(archive))
    reader.head()
    target.mkdir()
    reader.extract(manifest, target)
    return target


def test_an_archive_has_the_members_of_podman(archive: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == NAMES


def test_an_archive_is_read_as_it_was_written(
    archive: bytes, store: CheckpointStore, manifest: Manifest, tmp_path: Path
) -> None:
    stored = store.images(manifest).parent
    head = ArchiveReader(io.BytesIO(archive)).head()
    assert head.manifest == (stored / "manifest.json").read_bytes()
    assert store.is_mac(head.manifest, head.mac)
    assert head.signature == SIGNATURE
    target = extracted(archive, manifest, tmp_path / "target")
    for path in sorted(stored.rglob("*")):
        if path.is_file() and not path.name.startswith("manifest."):
            assert (target / path.relative_to(stored)).read_bytes() == path.read_bytes()


Member = tuple[tarfile.TarInfo, bytes]
Edit = Callable[[list[Member]], list[Member]]


def rewritten(archive: bytes, edit: Edit) -> bytes:
    members = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for info in tar:
            file = tar.extractfile(info)
            members.append((info, file.read() if file is not None else b""))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, data in edit(members):
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def plain(name: str, data: bytes = b"x") -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def special(name: str, kind: bytes, link: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def replaced(name: str, member: Member) -> Edit:
    return lambda members: [member if info.name == name else (info, d) for info, d in members]


def added(*more: Member) -> Edit:
    return lambda members: [*members, *more]


def twice(members: list[Member]) -> list[Member]:
    return [*members, next(m for m in members if m[0].name == "checkpoint/files.img")]


def without(name: str) -> Edit:
    return lambda members: [member for member in members if member[0].name != name]


HOSTILE: dict[str, tuple[Edit, str]] = {
    "a member that leaves the directory": (added(plain("checkpoint/../../out")), "does not name"),
    "an absolute member": (added(plain("/etc/passwd")), "does not name"),
    "an additional image": (added(plain("checkpoint/nftables-9.img")), "does not name"),
    "an additional directory": (added(special("other", tarfile.DIRTYPE)), "not a plain file"),
    "a member twice": (twice, "twice"),
    "information twice": (added(plain("config.dump")), "twice"),
    "the manifest twice": (added(plain("manifest.json")), "does not name"),
    "a symbolic link": (
        replaced(
            "checkpoint/files.img", special("checkpoint/files.img", tarfile.SYMTYPE, "/etc/shadow")
        ),
        "not a plain file",
    ),
    "a symbolic link for the directory": (
        replaced("checkpoint", special("checkpoint", tarfile.SYMTYPE, "/tmp")),
        "not a plain file",
    ),
    "a hard link": (
        replaced("spec.dump", special("spec.dump", tarfile.LNKTYPE, "/etc/shadow")),
        "not a plain file",
    ),
    "a device": (
        replaced("spec.dump", special("spec.dump", tarfile.CHRTYPE)),
        "not a plain file",
    ),
    "a larger file": (replaced("spec.dump", plain("spec.dump", b"{ }")), "the manifest says 2"),
    "a smaller file": (replaced("spec.dump", plain("spec.dump", b"{")), "the manifest says 2"),
    "another file of the same size": (replaced("spec.dump", plain("spec.dump", b"[]")), "digest"),
    "information without end": (
        replaced("config.dump", plain("config.dump", bytes((1 << 20) + 1))),
        "at most",
    ),
    "an image less": (without("checkpoint/files.img"), "lacks checkpoint/files.img"),
    "a volume less": (without("volumes/data.tar"), "lacks volumes/data.tar"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused(
    archive: bytes, manifest: Manifest, tmp_path: Path, case: str
) -> None:
    edit, words = HOSTILE[case]
    with pytest.raises(InvalidRequest, match=words):
        extracted(rewritten(archive, edit), manifest, tmp_path / "target")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", range(1, 20))
def test_a_truncated_archive_is_refused(
    archive: bytes, manifest: Manifest, tmp_path: Path, part: int
) -> None:
    with pytest.raises(InvalidRequest):
        extracted(archive[: (len(archive) - 10240) * part // 20], manifest, tmp_path / "target")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (without("manifest.json"), "in the place of manifest.json"),
        (without("manifest.mac"), "in the place of manifest.mac"),
        (replaced("manifest.mac", plain("manifest.mac", bytes(5000))), "at most 4096"),
        (replaced("manifest.sig", plain("manifest.sig", b"\xff")), "not base64"),
        (
            replaced("manifest.json", special("manifest.json", tarfile.SYMTYPE, "/x")),
            "not a plain file",
        ),
    ],
)
def test_a_hostile_head_is_refused(archive: bytes, edit: Edit, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        ArchiveReader(io.BytesIO(rewritten(archive, edit))).head()


def test_a_file_that_is_no_archive_is_refused() -> None:
    for data in (b"", b"x" * 4096, bytes(4096)):
        with pytest.raises(InvalidRequest):
            ArchiveReader(io.BytesIO(data)).head()
