"""EROFS images, mounted by the kernel: every attribute of the tree that was packed."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from jaula.errors import CorruptState
from jaula.kernel import mounts
from jaula.storage.compare import Difference, compare_trees
from jaula.storage.erofs import layer as erofs_layer
from jaula.storage.erofs.erofs_image import HOLE, Entry, write
from jaula.storage.layers.extract import Extractor
from jaula.storage.tar.tar_reader import TarReader
from jaula.storage.trees import is_opaque, open_directory, walk

DIRECTORY = stat.S_IFDIR | 0o755
FILE = stat.S_IFREG | 0o644
ROOT = Entry(b"", DIRECTORY)


@contextmanager
def mounted(metadata: Path, blob: Path) -> Iterator[int]:
    """Yield a descriptor of the root of an image."""
    source, device = os.open(metadata, os.O_RDONLY), os.open(blob, os.O_RDONLY)
    try:
        mount = erofs_layer._mount(source, device, direct=False)
    finally:
        os.close(source)
        os.close(device)
    try:
        with open_directory(".", dir_fd=mount) as root:
            yield root
    finally:
        os.close(mount)


@contextmanager
def image_of(top: Path, *entries: Entry, blob: bytes = b"") -> Iterator[int]:
    """Yield the root of an image of ``entries``."""
    (top / "image.blob").write_bytes(blob)
    with open(top / "image.metadata", "wb") as file:
        write([ROOT, *entries], file)
    with mounted(top / "image.metadata", top / "image.blob") as root:
        yield root


def create(directory: int) -> erofs_layer.ErofsFiles:
    """Pack the tree ``fs`` in a directory."""
    with (
        open_directory("fs", dir_fd=directory) as root,
        erofs_layer.open_blob(directory) as blob,
    ):
        erofs_layer.create(directory, root, blob)
    return erofs_layer.finish(directory, blob, verity=False)


@contextmanager
def packed(top: Path, tree: Path) -> Iterator[int]:
    """Yield the root of an image of the directory ``tree``, which is consumed."""
    layer = top / "layer"
    layer.mkdir()
    tree.rename(layer / "fs")
    with open_directory(layer) as directory:
        files = create(directory)
        assert not os.listdir(layer / "fs")
        with (
            erofs_layer.open_mount(directory, files) as mount,
            open_directory(".", dir_fd=mount) as root,
        ):
            yield root
    shutil.rmtree(layer)


def differences(root: int, tree: Path) -> list[Difference]:
    with open_directory(tree) as expected:
        directories = [path for path, _, _ in walk(expected)]
        return compare_trees(root, expected, timed_directories=directories)


def check_same(tmp_path: Path, tree: Path) -> None:
    """Pack a copy of ``tree``, and compare it with the tree in all attributes."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", "--sparse=auto", tree, copy], check=True)
    with packed(tmp_path, copy) as root:
        assert differences(root, tree) == []
        for path, directory, entries in walk(root):
            for name, actual in entries:
                expected = os.lstat(os.path.join(os.fsencode(tree), path, name))
                assert actual.st_nlink == expected.st_nlink, path + b"/" + name
                if not stat.S_ISDIR(actual.st_mode):
                    assert actual.st_size == expected.st_size, path + b"/" + name
            assert is_opaque(directory) == is_opaque_at(os.path.join(os.fsencode(tree), path))


def is_opaque_at(path: bytes) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return is_opaque(descriptor)
    finally:
        os.close(descriptor)


# -- trees ------------------------------------------------------------------------------------


def random_name(rng: random.Random) -> bytes:
    length = rng.choice((1, 2, 8, 30, 254, 255))
    alphabet = bytes(set(range(1, 256)) - {ord("/")})
    name = bytes(rng.choices(alphabet, k=length))
    return b"_" + name[1:] if name in (b".", b"..") else name


def random_attributes(rng: random.Random, path: bytes) -> None:
    kinds = ("user", "trusted", "security")
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kinds = ("trusted", "security")
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        name = f"{rng.choice(kinds)}.{rng.randbytes(rng.randint(1, 60)).hex()}"
        value = rng.randbytes(rng.choice((0, 1, 3, 4, 100, 300)))
        os.setxattr(path, name, value, follow_symlinks=False)


def random_tree(rng: random.Random, top: Path, count: int) -> None:
    """Create ``count`` files of all types below ``top``."""
    top.mkdir()
    directories, files = [os.fsencode(top)], []
    for _ in range(count):
        path = os.path.join(rng.choice(directories), random_name(rng))
        if os.path.lexists(path) or len(path) > 3500:
            continue
        kind = rng.choice(("file", "file", "file", "dir", "dir", "link", "hard", "node"))
        if kind == "dir":
            os.mkdir(path)
            directories.append(path)
            if rng.random() < 0.2:
                os.setxattr(path, "trusted.overlay.opaque", b"y")
        elif kind == "link":
            os.symlink(rng.randbytes(rng.choice((1, 60, 1500, 2000))).hex(), path)
        elif kind == "hard" and files:
            os.link(rng.choice(files), path, follow_symlinks=False)
            continue
        elif kind == "node":
            number = rng.choice((0, os.makedev(1, 3), os.makedev(259, 1048575)))
            os.mknod(path, rng.choice((stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO)) | 0o600, number)
        else:
            with open(path, "wb") as file:
                if rng.random() < 0.2:
                    file.truncate(rng.choice((1, 4096, 300_000, 5 << 20)))
                    file.seek(rng.randint(0, 4 << 20))
                file.write(rng.randbytes(rng.choice((0, 1, 4095, 4096, 4097, 70_000, 2_000_000))))
        if kind != "dir":
            files.append(path)
        os.chown(
            path, rng.choice((0, 1000, 65535, 65536, 2**32 - 2)), rng.choice((0, 70000)),
            follow_symlinks=False,
        )  # fmt: skip
        if kind != "link":
            os.chmod(path, rng.choice((0o644, 0o755, 0o4755, 0o2755, 0o1777, 0)))
        random_attributes(rng, path)
    for path in files + directories:
        time = rng.choice((0, 1_700_000_000_000_000_000, 1_700_000_000_123_456_789, -(10**9)))
        os.utime(path, ns=(time, time), follow_symlinks=False)


@pytest.mark.parametrize("seed", range(8))
def test_a_random_tree_is_mounted_with_all_attributes(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    random_tree(rng, tmp_path / "tree", rng.choice((3, 50, 400)))
    check_same(tmp_path, tmp_path / "tree")


@pytest.mark.needs("fsck.erofs")
@pytest.mark.parametrize("seed", range(4))
def test_the_checker_of_erofs_utils_accepts_a_random_tree(tmp_path: Path, seed: int) -> None:
    random_tree(random.Random(seed), tmp_path / "fs", 100)
    with open_directory(tmp_path) as directory:
        create(directory)
    result = subprocess.run(
        ["fsck.erofs", f"--device={tmp_path}/blob", tmp_path / "metadata"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_directory_of_100000_files_is_listed_and_searched(tmp_path: Path) -> None:
    names = [b"%06d-" % number + b"n" * (number % 200) for number in range(100_000)]
    entries = [Entry(b"d", DIRECTORY), *(Entry(b"d/" + name, FILE) for name in names)]
    with image_of(tmp_path, *entries) as root, open_directory("d", dir_fd=root) as directory:
        assert sorted(map(os.fsencode, os.listdir(directory))) == names
        for name in random.Random(1).sample(names, 2000):
            assert os.stat(name, dir_fd=directory).st_size == 0
        with pytest.raises(FileNotFoundError):
            os.stat(b"050000", dir_fd=directory)


def test_names_are_found_whatever_their_bytes(tmp_path: Path) -> None:
    names = [b"%c%c" % (byte, 255 - byte % 99) for byte in range(1, 256) if byte != ord("/")]
    names += [b"n" * 255, b"\xff" * 255, b"...", b"-", b"!", b".-", b"new\nline"]
    entries = [Entry(name, FILE, uid=number) for number, name in enumerate(names)]
    with image_of(tmp_path, *entries) as root:
        assert set(map(os.fsencode, os.listdir(root))) == set(names)
        for number, name in enumerate(names):
            assert os.stat(name, dir_fd=root).st_uid == number


def test_offsets_beyond_4_gib_of_file_and_blob_are_read(tmp_path: Path) -> None:
    blob = tmp_path / "big.blob"
    with open(blob, "wb") as file:
        file.truncate(9 << 30)
        file.seek(5 << 30)
        file.write(b"five".ljust(4096, b"."))
        file.seek(8 << 30)
        file.write(b"eight")
    entries = [
        ROOT,
        Entry(b"one", FILE, size=9 << 30, chunks=(0,)),
        Entry(
            b"chunks", FILE, size=(6 << 30) + 4, chunk_size=1 << 30,
            chunks=(HOLE, HOLE, 5 << 30, HOLE, HOLE, HOLE, 8 << 30),
        ),
        Entry(b"hole", FILE, size=1 << 43, chunks=(HOLE,)),
    ]  # fmt: skip
    with open(tmp_path / "big.metadata", "wb") as file:
        write(entries, file, blob_size=9 << 30)

    def read(root: int, name: str, offset: int) -> bytes:
        descriptor = os.open(name, os.O_RDONLY, dir_fd=root)
        try:
            return os.pread(descriptor, 5, offset)
        finally:
            os.close(descriptor)

    with mounted(tmp_path / "big.metadata", blob) as root:
        assert read(root, "one", 5 << 30) == b"five."
        assert read(root, "one", 8 << 30) == b"eight"
        assert read(root, "chunks", 2 << 30) == b"five."
        assert read(root, "chunks", 6 << 30) == b"eigh"
        assert read(root, "chunks", 1 << 30) == bytes(5)
        assert read(root, "hole", (1 << 43) - 5) == bytes(5)
        assert os.stat("hole", dir_fd=root).st_size == 1 << 43


def test_chunks_in_any_order_and_shared_between_files(tmp_path: Path) -> None:
    blocks = [bytes([65 + number]) * 4096 for number in range(4)]
    entries = [
        Entry(b"a", FILE, size=10_000, chunk_size=4096, chunks=(8192, 0, 4096)),
        Entry(b"b", FILE, size=16_384, chunk_size=8192, chunks=(0, 8192)),
        Entry(b"c", FILE, size=5000, chunk_size=4096, chunks=(12288, HOLE)),
    ]
    with image_of(tmp_path, *entries, blob=b"".join(blocks)) as root:

        def content(name: str) -> bytes:
            with open(os.open(name, os.O_RDONLY, dir_fd=root), "rb") as file:
                return file.read()

        assert content("a") == blocks[2] + blocks[0] + blocks[1][: 10_000 - 8192]
        assert content("b") == b"".join(blocks)
        assert content("c") == blocks[3] + bytes(5000 - 4096)


def test_many_and_large_attributes(tmp_path: Path) -> None:
    many = {
        f"user.{number:04}{'n' * (number % 240)}": b"v" * (number % 90) for number in range(400)
    }
    acl = b"\x02\0\0\0" + b"".join(
        bytes((tag, 0, 7, 0)) + identity
        for tag, identity in (
            (1, b"\xff" * 4), (2, b"\xe8\x03\0\0"), (4, b"\xff" * 4), (16, b"\xff" * 4),
            (32, b"\xff" * 4),
        )
    )  # fmt: skip
    capability = b"\x01\0\0\x02\0\x04\0\0" + bytes(12)
    entries = [
        Entry(b"many", FILE, xattrs=many),
        Entry(b"large", FILE, xattrs={"user.large": b"x" * 65_535, "trusted.a": b"\0\1"}),
        Entry(b"acl", FILE, xattrs={"system.posix_acl_access": acl}),
        Entry(b"capability", FILE, xattrs={"security.capability": capability}),
        Entry(b"odd", FILE, xattrs={"user.\udcff\udcfe": b"1"}),
    ]
    with image_of(tmp_path, *entries) as root:
        for entry in entries:
            file = b"/proc/self/fd/%d/%s" % (root, entry.path)
            assert {n: os.getxattr(file, n) for n in os.listxattr(file)} == dict(entry.xattrs)


def test_links_of_every_length(tmp_path: Path) -> None:
    lengths = [*range(1, 100), *range(1900, 2100), *range(3900, 4096)]
    entries = [Entry(b"%d" % n, stat.S_IFLNK | 0o777, link=b"x" * n) for n in lengths]
    with image_of(tmp_path, *entries) as root:
        for length in lengths:
            assert os.readlink(b"%d" % length, dir_fd=root) == b"x" * length


def test_a_hard_link_to_a_link_and_to_a_device(tmp_path: Path) -> None:
    entries = [
        Entry(b"z", stat.S_IFLNK | 0o777, link=b"target"),
        Entry(b"a", 0, hard_link=b"z"),
        Entry(b"null", stat.S_IFCHR | 0o666, rdev=os.makedev(1, 3)),
        Entry(b"d", DIRECTORY),
        Entry(b"d/null", 0, hard_link=b"null"),
    ]
    with image_of(tmp_path, *entries) as root:
        status = os.stat("a", dir_fd=root, follow_symlinks=False)
        assert os.readlink("a", dir_fd=root) == "target"
        assert (status.st_nlink, status.st_ino) == (
            2,
            os.stat("z", dir_fd=root, follow_symlinks=False).st_ino,
        )
        assert os.stat("d/null", dir_fd=root).st_rdev == os.makedev(1, 3)


def test_whiteouts_and_opaque_directories_of_a_layer_hide_the_lower_layer(
    tmp_path: Path, tar: Callable[..., bytes]
) -> None:
    lower = tmp_path / "lower"
    for name in ("gone", "kept", "dir/old"):
        path = lower / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    layer = tar(
        (".wh.gone", ""), ("dir", "dir", {"mode": 0o755}), ("dir/.wh..wh..opq", ""),
        ("dir/new", "new"),
    )  # fmt: skip
    tree = tmp_path / "tree"
    tree.mkdir(mode=0o755)
    with open_directory(tree) as root:
        Extractor(root).run(TarReader(io.BytesIO(layer)))
    layer_directory, upper = tmp_path / "layer", tmp_path / "upper"
    upper.mkdir()
    layer_directory.mkdir()
    tree.rename(layer_directory / "fs")
    with open_directory(layer_directory) as directory:
        files = create(directory)
        with erofs_layer.open_mount(directory, files) as mount:
            mounts.move_mount(mount, str(upper))
    try:
        overlay = mounts.overlay((str(upper), str(lower)))
        try:
            with open_directory(".", dir_fd=overlay) as merged:
                assert sorted(os.listdir(merged)) == ["dir", "kept"]
            with open_directory("dir", dir_fd=overlay) as merged:
                assert os.listdir(merged) == ["new"]
        finally:
            os.close(overlay)
    finally:
        erofs_layer.unmount(str(upper))


def test_a_damaged_image_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "fs").mkdir()
    with open_directory(tmp_path) as directory:
        files = create(directory)
        data = bytearray((tmp_path / "metadata").read_bytes())
        data[1024 + 90] ^= 1
        (tmp_path / "metadata").write_bytes(data)
        with (
            pytest.raises(CorruptState, match="the file metadata of the layer is damaged"),
            erofs_layer.open_mount(directory, files),
        ):
            pass
        (tmp_path / "blob").unlink()
        with (
            pytest.raises(CorruptState, match="the file blob of the layer is missing"),
            erofs_layer.open_mount(directory, files),
        ):
            pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_an_engine_starts_on_a_full_disk_and_with_a_used_up_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(erofs_layer, "finish", refuse)
    with pytest.raises(OSError, match="Input") if number == errno.EIO else nullcontext():
        erofs_layer.probe(tmp_path, verity=False)
    assert list(tmp_path.iterdir()) == []
