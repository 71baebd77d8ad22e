"""The tmpfs of the images that a migration sends: its limit, and its removal."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaula.features.checkpoint.checkpoint_store import CheckpointStore, Manifest
from jaula.storage.filesystem_type import filesystem_name

CONTAINER = "c" * 64
SIZE = 1 << 20
FACTS = Manifest(
    container=CONTAINER,
    name="migration",
    created=1,
    criu="4.2",
    kernel="6.18",
    architecture="x86_64",
    image="sha256:0",
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CheckpointStore]:
    yield CheckpointStore(tmp_path / "checkpoints")
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


REMOVALS: dict[str, Callable[[CheckpointStore, Path], None]] = {
    "discard": lambda store, images: store.discard(images),
    "remove all": lambda store, _: store.remove_all(CONTAINER),
    "sweep": lambda store, _: store.sweep({CONTAINER}),
    "sweep of a container that is gone": lambda store, _: store.sweep(set()),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_images_in_memory_are_removed_while_they_are_open(
    store: CheckpointStore, removal: str
) -> None:
    images = store.begin_sent(CONTAINER, SIZE)
    assert filesystem_name(images) == "tmpfs"
    assert images.parent.stat().st_mode & 0o777 == 0o700
    assert store.names(CONTAINER) == []
    with images.joinpath("pages-1.img").open("wb"):  # by CRIU
        REMOVALS[removal](store, images)
    assert not images.parent.exists()


def test_the_limit_holds(store: CheckpointStore) -> None:
    images = store.begin_sent(CONTAINER, SIZE)
    fd = os.open(images / "pages-1.img", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="No space") as failure:
            os.posix_fallocate(fd, 0, 2 * SIZE)
        assert failure.value.errno == errno.ENOSPC
        assert os.write(fd, bytes(2 * SIZE)) <= SIZE
    finally:
        os.close(fd)
        store.discard(images)


def test_received_images_are_on_the_disk(store: CheckpointStore) -> None:
    images = store.begin_received(CONTAINER, "migration")
    assert not images.parent.is_mount()
    (images / "pages-1.img").write_bytes(b"memory")
    store.seal(FACTS)
    assert store.verify(store.read(CONTAINER, "migration")) == images
    store.remove(CONTAINER, "migration")
    assert not images.parent.exists()
