"""The store of checkpoints: only what this engine has made, unchanged, is used."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from jaula import trusted_file
from jaula.errors import InvalidRequest, JaulaError
from jaula.features.checkpoint import checkpoint_store
from jaula.features.checkpoint.checkpoint_store import (
    MAC,
    MANIFEST,
    CheckpointFile,
    CheckpointFiles,
    CheckpointStore,
    DigestCancelled,
    Manifest,
    decode,
    describe_file,
)
from jaula.features.checkpoint.checkpoint_store import add_file as add_held

FACTS = Manifest(
    container="c" * 64,
    name="one",
    created=1,
    criu="4.2",
    kernel="6.18",
    architecture="x86_64",
    image="sha256:0",
    stdio=(0, 11, 12),
)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


@pytest.fixture
def made(store: CheckpointStore) -> Path:
    """Make a checkpoint; return its directory."""
    images = store.begin(FACTS.container, FACTS.name)
    (images / "pages-1.img").write_bytes(b"memory")
    (images / "files.img").write_bytes(b"files")
    with add_held(images, "volume-0.tar") as file:
        file.write(b"archive")
    held = CheckpointFiles(files=(describe_file(images, "volume-0.tar"),))
    store.commit(images, msgspec.structs.replace(FACTS, held=held))
    return store.images(FACTS).parent


def test_images_to_send_have_no_name(store: CheckpointStore) -> None:
    images = store.begin_sent(FACTS.container, 0)
    assert store.names(FACTS.container) == []
    store.sweep({FACTS.container})
    assert not images.exists()


def test_received_images_are_used_only_once_they_are_sealed(store: CheckpointStore) -> None:
    images = store.begin_received(FACTS.container, FACTS.name)
    with pytest.raises(InvalidRequest, match="exists"):
        store.begin_received(FACTS.container, FACTS.name)
    with pytest.raises(InvalidRequest, match="Invalid checkpoint ID"):
        store.begin_received(FACTS.container, "../x")
    (images / "pages-1.img").write_bytes(b"memory")
    assert store.names(FACTS.container) == ["one"]
    with pytest.raises(InvalidRequest, match="is refused"):
        store.read(FACTS.container, "one")
    sealed = store.seal(FACTS)
    assert store.read(FACTS.container, "one") == sealed
    assert store.verify(sealed).joinpath("pages-1.img").read_bytes() == b"memory"
    store.images(FACTS).joinpath("pages-1.img").write_bytes(b"other!")
    with pytest.raises(InvalidRequest, match="was changed"):
        store.verify(sealed)


def test_the_digest_of_a_large_hole_ends_when_it_is_cancelled(store: CheckpointStore) -> None:
    images = store.begin_received(FACTS.container, FACTS.name)
    with (images / "pages-1.img").open("wb") as file:
        file.truncate(1 << 40)
    begun, cancelled = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def is_cancelled() -> bool:
        begun.set()
        return cancelled.is_set()

    def seal() -> None:
        try:
            store.seal(FACTS, is_cancelled)
        except DigestCancelled as error:
            failures.append(error)

    thread = threading.Thread(target=seal, daemon=True)
    thread.start()
    assert begun.wait(30)
    cancelled.set()
    thread.join(30)
    assert [type(each) for each in failures] == [DigestCancelled]
    with pytest.raises(InvalidRequest, match="is refused"):
        store.read(FACTS.container, "one")


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (b"data",),
        (5 << 20,),
        (b"data", 3 << 20),
        (1 << 20, b"data" * 300_000, (1 << 20) + 7, b"x", 12345),
    ],
)
def test_the_digest_of_holes_is_that_of_zeros(
    store: CheckpointStore, tmp_path: Path, parts: tuple[bytes | int, ...]
) -> None:
    whole = b"".join(bytes(part) if isinstance(part, int) else part for part in parts)
    path, at = tmp_path / "sparse", 0
    with path.open("wb") as file:
        for part in parts:
            if isinstance(part, bytes):
                os.pwrite(file.fileno(), part, at)
            at += part if isinstance(part, int) else len(part)
        file.truncate(at)
    expected = CheckpointFile("sparse", len(whole), hashlib.sha256(whole).hexdigest())
    assert store.digest(path) == expected


def test_holes_are_not_read(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    read = []
    monkeypatch.setattr(os, "preadv", lambda *_: read.append(1))
    store.digest(path)
    assert read == []


def test_a_file_of_another_size_is_refused_without_its_digest(
    store: CheckpointStore, made: Path
) -> None:
    manifest = store.read(FACTS.container, "one")
    with (made / "images/files.img").open("r+b") as file:
        file.truncate(1 << 43)
    begun = time.monotonic()
    with pytest.raises(InvalidRequest, match=r"files\.img was changed"):
        store.verify(manifest)
    assert time.monotonic() - begun < 5


def test_a_verification_ends_when_it_is_cancelled(store: CheckpointStore, made: Path) -> None:
    with pytest.raises(DigestCancelled):
        store.verify(store.read(FACTS.container, "one"), is_cancelled=lambda: True)


def test_a_checkpoint_is_read_as_it_was_made(store: CheckpointStore, made: Path) -> None:
    manifest = store.read(FACTS.container, "one")
    assert (manifest.stdio, manifest.size) == ((0, 11, 12), 18)
    assert store.verify(manifest) == made / "images"
    assert (made.parent.parent.stat().st_mode & 0o777) == 0o700
    assert ((made / "images").stat().st_mode & 0o777) == 0o711
    assert ((made / "images/files.img").stat().st_mode & 0o777) == 0o644


def test_another_store_with_the_same_key_reads_it(store: CheckpointStore, made: Path) -> None:
    other = CheckpointStore(made.parent.parent)
    other.verify(other.read(FACTS.container, "one"))


def test_an_unfinished_checkpoint_has_no_name(store: CheckpointStore) -> None:
    store.begin(FACTS.container, "one")
    assert store.names(FACTS.container) == []
    store.begin(FACTS.container, "one")


def change_file(made: Path) -> None:
    (made / "images/pages-1.img").write_bytes(b"memorY")


def add_file(made: Path) -> None:
    (made / "images/nftables-9.img").write_bytes(b"")


def remove_file(made: Path) -> None:
    (made / "images/files.img").unlink()


def link_file(made: Path) -> None:
    path = made / "images/files.img"
    path.rename(made / "elsewhere")
    path.symlink_to(made / "elsewhere")


def change_manifest(made: Path) -> None:
    path = made / MANIFEST
    path.write_bytes(path.read_bytes().replace(b"[0, 11, 12]", b"[0, 11, 13]"))
    path.write_bytes(path.read_bytes().replace(b'"kernel": "6.18"', b'"kernel": "6.19"'))


def empty_manifest(made: Path) -> None:
    (made / MANIFEST).write_bytes(b"")


def remove_mac(made: Path) -> None:
    (made / MAC).unlink()


def empty_mac(made: Path) -> None:
    (made / MAC).write_bytes(b"")


def change_held_file(made: Path) -> None:
    (made / "files/volume-0.tar").write_bytes(b"archivE")


def add_held_file(made: Path) -> None:
    (made / "files/volume-1.tar").write_bytes(b"")


def remove_held_files(made: Path) -> None:
    shutil.rmtree(made / "files")


@pytest.mark.parametrize(
    "edit",
    [
        change_file,
        add_file,
        remove_file,
        link_file,
        change_manifest,
        empty_manifest,
        remove_mac,
        empty_mac,
        change_held_file,
        add_held_file,
        remove_held_files,
    ],
    ids=lambda edit: edit.__name__,
)
def test_a_changed_checkpoint_is_refused(
    store: CheckpointStore, made: Path, edit: Callable[[Path], None]
) -> None:
    edit(made)
    with pytest.raises(InvalidRequest, match="is refused"):
        store.verify(store.read(FACTS.container, "one"))


def test_the_checkpoint_of_another_engine_is_refused(
    store: CheckpointStore, made: Path, tmp_path: Path
) -> None:
    other = CheckpointStore(tmp_path / "other")
    images = other.begin(FACTS.container, "mine")
    other.discard(images)
    os.rename(made, tmp_path / "other" / FACTS.container / "one")
    with pytest.raises(InvalidRequest, match="not signed by this engine"):
        other.read(FACTS.container, "one")


def test_the_checkpoint_of_another_container_is_refused(store: CheckpointStore, made: Path) -> None:
    store.begin("d" * 64, "one")
    os.rename(made, made.parent.parent / ("d" * 64) / "one")
    with pytest.raises(InvalidRequest, match="another container"):
        store.read("d" * 64, "one")


@pytest.mark.parametrize("name", ["", "a", "../x", ".new-1", "-x", "a/b", "ä1", "one\n"])
def test_a_bad_name_is_refused(store: CheckpointStore, name: str) -> None:
    with pytest.raises(InvalidRequest, match="Invalid checkpoint ID"):
        store.begin(FACTS.container, name)


def test_a_name_of_one_character_is_refused_with_the_reason(store: CheckpointStore) -> None:
    with pytest.raises(InvalidRequest) as caught:
        store.begin(FACTS.container, "a")
    assert caught.value.hint == "a name has two characters or more"


def test_a_name_is_used_once(store: CheckpointStore, made: Path) -> None:
    with pytest.raises(InvalidRequest, match="checkpoint with name one already exists"):
        store.begin(FACTS.container, "one")
    store.remove(FACTS.container, "one")
    assert not made.exists()
    with pytest.raises(InvalidRequest, match="does not exist"):
        store.remove(FACTS.container, "one")


def test_a_sweep_keeps_complete_checkpoints_of_containers(
    store: CheckpointStore, made: Path
) -> None:
    unfinished = store.begin(FACTS.container, "two").parent
    links = made / "restore-0123456789abcdef"
    links.mkdir()
    gone = store.begin("e" * 64, "one").parent.parent
    store.sweep({FACTS.container})
    assert (unfinished.exists(), links.exists(), gone.exists()) == (False, False, False)
    store.verify(store.read(FACTS.container, "one"))


def test_a_damaged_key_is_one_clear_error(store: CheckpointStore, made: Path) -> None:
    (made.parent.parent / ".key").write_bytes(b"short")
    with pytest.raises(JaulaError, match="key of checkpoints"):
        CheckpointStore(made.parent.parent).read(FACTS.container, "one")


def test_a_sweep_removes_the_key_that_a_killed_engine_was_writing(
    store: CheckpointStore, made: Path
) -> None:
    unfinished = made.parent.parent / ".key-0123456789abcdef"
    unfinished.write_bytes(b"half")
    store.sweep({FACTS.container})
    assert not unfinished.exists()
    store.verify(store.read(FACTS.container, "one"))


def test_threads_that_need_the_first_key_get_the_same(tmp_path: Path) -> None:
    for number in range(20):
        directory = tmp_path / str(number)
        stores = [CheckpointStore(directory) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            keys = set(pool.map(CheckpointStore._read_key, stores))
        assert len(keys) == 1
        assert [path.name for path in directory.iterdir() if path.is_file()] == [".key"]


# -- other containers and directories ----------------------------------------------------------


def test_a_linked_checkpoint_is_that_of_another_container(
    store: CheckpointStore, made: Path
) -> None:
    manifest = store.read(FACTS.container, "one")
    other = msgspec.structs.replace(manifest, container="d" * 64)
    store.link(other, made)
    found = store.read("d" * 64, "one")
    store.verify(found)
    store.remove(FACTS.container, "one")
    store.verify(found)
    with pytest.raises(InvalidRequest, match="already exists"):
        store.link(other, made)


def test_a_link_to_what_was_removed_leaves_nothing(store: CheckpointStore, made: Path) -> None:
    manifest = store.read(FACTS.container, "one")
    store.remove(FACTS.container, "one")
    with pytest.raises(JaulaError, match="cannot be copied"):
        store.link(msgspec.structs.replace(manifest, container="d" * 64), made)
    assert os.listdir(made.parent.parent / ("d" * 64)) == []


def write(store: CheckpointStore, transaction: str, container: str = FACTS.container) -> Manifest:
    """Make a checkpoint of a transaction, with the common name."""
    images = store.begin(container, FACTS.name)
    (images / "pages-1.img").write_bytes(b"memory")
    facts = msgspec.structs.replace(FACTS, container=container, transaction=transaction)
    return store.commit(images, facts)


@pytest.mark.parametrize("replaced", [False, True])
def test_only_the_checkpoint_of_the_transaction_is_undone(
    store: CheckpointStore, replaced: bool
) -> None:
    write(store, "word")
    if replaced:
        store.remove(FACTS.container, FACTS.name)
        write(store, "another")
    store.undo(FACTS.container, FACTS.name, "word")
    assert store.names(FACTS.container) == ([FACTS.name] if replaced else [])
    directory = store.images(FACTS).parent.parent
    assert os.listdir(directory) == ([FACTS.name] if replaced else [])
    store.undo(FACTS.container, "absent", "word")


def test_a_copy_is_not_undone_with_the_transaction_of_its_source(
    store: CheckpointStore, tmp_path: Path
) -> None:
    """An exported checkpoint that is imported again has the same manifest."""
    manifest = write(store, "word")
    exported = shutil.copytree(store.images(manifest).parent, tmp_path / "exported")
    store.remove(FACTS.container, FACTS.name)
    store.link(manifest, exported)
    store.undo(FACTS.container, FACTS.name, "word")
    assert store.names(FACTS.container) == [FACTS.name]


@pytest.mark.parametrize("undo", [False, True])
def test_no_name_is_taken_away_between_the_check_of_an_undo_and_the_removal(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, undo: bool
) -> None:
    write(store, "word")
    read, entered, go_on = CheckpointStore.read, threading.Event(), threading.Event()

    def slow_read(self: CheckpointStore, container: str, name: str) -> Manifest:
        found = read(self, container, name)
        entered.set()
        assert go_on.wait(30)
        return found

    monkeypatch.setattr(CheckpointStore, "read", slow_read)
    with ThreadPoolExecutor(2) as pool:
        undoing = pool.submit(store.undo, FACTS.container, FACTS.name, "word")
        assert entered.wait(30)
        other: Callable[[], None] = lambda: store.remove(FACTS.container, FACTS.name)  # noqa: E731
        if undo:
            other = lambda: store.undo(FACTS.container, FACTS.name, "word")  # noqa: E731
        removing = pool.submit(other)
        time.sleep(0.05)
        assert store.names(FACTS.container) == [FACTS.name]
        go_on.set()
        undoing.result(30)
        if undo:
            removing.result(30)
        else:
            with pytest.raises(InvalidRequest, match="does not exist"):
                removing.result(30)
    assert os.listdir(store.images(FACTS).parent.parent) == []


@pytest.fixture
def shared(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CheckpointStore:
    """Return the store of a directory of the host, which any container may use."""
    monkeypatch.setattr(trusted_file, "check_path", lambda path, description: None)
    return store.at(str(tmp_path))


def test_a_directory_of_the_host_keeps_the_checkpoint_of_another_container(
    shared: CheckpointStore, tmp_path: Path
) -> None:
    """Another container may have got the name since it was looked up."""
    write(shared, "", "d" * 64)
    with pytest.raises(InvalidRequest, match="belongs to another container"):
        shared.remove(FACTS.container, FACTS.name)
    assert (tmp_path / FACTS.name).is_dir()
    shared.remove("d" * 64, FACTS.name)
    assert not (tmp_path / FACTS.name).exists()


def test_the_second_of_two_that_get_one_name_is_refused(shared: CheckpointStore) -> None:
    images = [shared.begin(container, FACTS.name) for container in (FACTS.container, "d" * 64)]
    first = shared.commit(images[0], FACTS)
    with pytest.raises(InvalidRequest, match="checkpoint with name one already exists"):
        shared.commit(images[1], msgspec.structs.replace(FACTS, container="d" * 64))
    assert msgspec.structs.replace(shared.read(FACTS.container, "one"), directory="") == first


def test_a_directory_of_a_manifest_is_not_read_from_its_file(
    store: CheckpointStore, made: Path
) -> None:
    """A signed archive must not name a directory of the host."""
    manifest = msgspec.structs.replace(store.read(FACTS.container, "one"), directory="/etc")
    assert decode(msgspec.json.encode(manifest)).directory == ""
    images = store.begin(FACTS.container, "two")
    store.commit(images, msgspec.structs.replace(manifest, name="two"))
    assert store.images(store.read(FACTS.container, "two")).parent == made.parent / "two"


def test_only_root_may_be_able_to_change_a_checkpoint_directory(
    store: CheckpointStore, tmp_path: Path
) -> None:
    for path in (str(tmp_path), "relative", "/run/../etc", "/nul\0"):
        with pytest.raises(InvalidRequest, match="the checkpoint directory"):
            store.at(path)
    assert store.at("") is store


def test_checkpoints_are_removed_while_one_is_being_written(
    store: CheckpointStore, made: Path
) -> None:
    images = store.begin(FACTS.container, "two")
    written = 0

    def write() -> None:
        nonlocal written
        while True:
            (images / f"{written}.img").write_bytes(b"")
            written += 1

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while written < 100 and not writing.done():
            pass
        store.remove_all(FACTS.container)
        assert isinstance(writing.exception(10), FileNotFoundError)
    assert [entry.name for entry in made.parent.parent.iterdir()] == [".key"]


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_sweep_bears_a_writer_that_an_engine_has_left(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, is_ended: bool
) -> None:
    """CRIU writes on for a moment when its engine was killed."""
    monkeypatch.setattr(checkpoint_store, "_WRITER_TIME", 60.0 if is_ended else 0.2)
    images = store.begin(FACTS.container, "two")
    removals = []
    whole = shutil.rmtree

    def remove(path: Path) -> None:
        removals.append(path)
        if not is_ended or len(removals) < 3:
            (images / "pages-1.img").write_bytes(b"memory")
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        whole(path)

    monkeypatch.setattr(checkpoint_store.shutil, "rmtree", remove)
    store.sweep({FACTS.container})
    assert len(removals) >= 3
    assert images.exists() is not is_ended
