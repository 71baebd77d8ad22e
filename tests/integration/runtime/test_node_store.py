"""The store of device nodes on a kernel that clones attached mounts only."""

from __future__ import annotations

import errno
import os

import pytest

from jaula.kernel import mounts, namespaces
from jaula.runtime.create import device_nodes
from jaula.runtime.create.device_nodes import Node
from jaula.runtime.init.step import NODES, NULL, RootfsContext


def _build(nodes: tuple[Node, ...], store: int, null: int) -> None:
    """Attach every node and a mask's null in a new root, then look at it from inside."""
    namespaces.unshare(namespaces.CLONE.NEWNS)
    mounts.mount(None, "/", None, mounts.MS.REC | mounts.MS.PRIVATE)
    root = mounts.new_filesystem("tmpfs")
    mounts.move_mount(root, "/mnt")
    stage = RootfsContext(root, {NODES: store, NULL: null})
    for node in nodes:
        node.execute(stage)
    os.close(stage.null())
    stage.finish()
    os.chroot(f"/proc/self/fd/{root}")
    os.chdir("/")
    assert os.listdir("/") == ["dev"]
    assert set(os.listdir("/dev")) == {"null", "zero", "full", "random", "urandom", "tty"}
    fd = os.open("/dev/zero", os.O_RDONLY)
    assert os.read(fd, 2) == b"\0\0"


def test_nodes_are_attached_and_the_store_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = device_nodes.device_nodes(())
    store = device_nodes.make_node_store(nodes, (0, 0))
    null = os.open(device_nodes.NULL_NAME, os.O_PATH | os.O_NOFOLLOW, dir_fd=store)
    clone, refusals = mounts.clone_tree, [1]

    def like_linux_6_12(path: str, *, recursive: bool = False, dir_fd: int = -100) -> int:
        if refusals:
            refusals.pop()
            raise OSError(errno.EINVAL, "not attached")
        return clone(path, recursive=recursive, dir_fd=dir_fd)

    monkeypatch.setattr(mounts, "clone_tree", like_linux_6_12)
    pid = os.fork()
    if pid == 0:
        try:
            _build(nodes, store, null)
        except BaseException as error:  # noqa: BLE001 - the parent sees the status
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    os.close(null)
    os.close(store)
    assert status == 0
