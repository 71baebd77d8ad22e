"""Steps that mount: what was prepared outside, fresh file systems, cgroup directories."""

from __future__ import annotations

import os
import stat

import msgspec

from jaula.kernel import mounts
from jaula.kernel.paths import (
    RESOLVE,
    make_directory_in_root,
    open_in_root,
    openat2,
)
from jaula.runtime.init import fsmount
from jaula.runtime.init.step import RootfsContext, attach, not_in_proc, place_for, shape
from jaula.runtime.init.tmpcopyup import copy_tree


class AttachPrepared(msgspec.Struct, frozen=True):
    """Attach a mount that the shim made with the host's view."""

    slot: int
    destination: str

    def describe(self) -> str:
        return f"attach prepared mount {self.slot} at {self.destination}"

    def execute(self, stage: RootfsContext) -> None:
        tree = stage.prepared.pop(self.slot)
        try:
            attach(tree, place_for(stage, self.destination, tree))
        finally:
            os.close(tree)


class MountFilesystem(msgspec.Struct, frozen=True):
    """Mount a fresh file system that belongs to the container's namespaces."""

    fstype: str
    destination: str
    data: tuple[tuple[str, str | None], ...]
    attributes: int
    copy_up: bool = False
    source: str = ""
    superblock: int = 0
    recursive: tuple[int, int] = (0, 0)  # attributes set and cleared in the whole tree
    propagation: tuple[tuple[int, bool], ...] = ()

    def describe(self) -> str:
        data = ",".join(k if v is None else f"{k}={v}" for k, v in self.data)
        return f"mount {self.fstype} at {self.destination} ({data})"

    def execute(self, stage: RootfsContext) -> None:
        like_below = (
            self.fstype == "tmpfs"
            and not any(key == "mode" for key, _ in self.data)
            and _is_there(stage, self.destination)
        )
        target = not_in_proc(make_directory_in_root(stage.root, self.destination), self.destination)
        if self.fstype == "proc" or self.fstype == "sysfs":
            _refuse_link(stage, self.destination)
        data = self.data
        if like_below:
            mode = stat.S_IMODE(os.fstat(target).st_mode)  # where there is none, the kernel's 1777
            data = (*data, ("mode", f"{mode:o}"))
        late = mounts.MOUNT_ATTR.RDONLY if self.copy_up else 0
        source = self.source or self.fstype
        attributes = self.attributes & ~late
        tree = fsmount.make(self.fstype, source, data, self.superblock, attributes, target)
        placed = tree < 0
        if placed:
            os.close(target)
            tree = open_in_root(stage.root, self.destination, os.O_PATH)
        try:
            if self.copy_up:
                copy_tree(stage.root, self.destination, tree)
            if self.attributes & late:
                mounts.mount_setattr(tree, set=late)
            shape(tree, (0, 0), self.recursive, self.propagation)
            if not placed:
                attach(tree, target)
        finally:
            os.close(tree)


class Remount(msgspec.Struct, frozen=True):
    """Change what is mounted already: its attributes or, not ``bind``, its file system's flags."""

    destination: str
    bind: bool
    data: tuple[tuple[str, str | None], ...]
    one: tuple[int, int]
    recursive: tuple[int, int]
    superblock: int
    propagation: tuple[tuple[int, bool], ...]

    def describe(self) -> str:
        return f"remount {self.destination}"

    def execute(self, stage: RootfsContext) -> None:
        place = not_in_proc(open_in_root(stage.root, self.destination, os.O_PATH), self.destination)
        try:
            if not self.bind and (self.data or self.superblock):
                flags = mounts.MS.REMOUNT | fsmount.flags_of(self.one[0], self.superblock)
                data = fsmount.data_text(self.data)
                mounts.mount(None, f"/proc/self/fd/{place}", None, flags, data)
            shape(place, self.one, self.recursive, self.propagation)
        finally:
            os.close(place)


class BindHost(msgspec.Struct, frozen=True):
    """Bind a directory of the host's tree, which is ``/`` here, such as the container's cgroup."""

    source: str
    destination: str
    attributes: int

    def describe(self) -> str:
        return f"bind {self.source} at {self.destination}"

    def execute(self, stage: RootfsContext) -> None:
        tree = mounts.clone_tree(self.source, recursive=True)
        try:
            private = ((int(mounts.MS.PRIVATE), True),)
            shape(tree, (0, 0), (self.attributes, 0), private)
            attach(tree, place_for(stage, self.destination, tree))
        finally:
            os.close(tree)


def _is_there(stage: RootfsContext, destination: str) -> bool:
    try:
        os.close(open_in_root(stage.root, destination, os.O_PATH))
    except FileNotFoundError:
        return False
    return True


def _refuse_link(stage: RootfsContext, destination: str) -> None:
    """Proc and sysfs are mounted only on real directories of the image (CVE-2019-19921)."""
    os.close(
        openat2(
            stage.root,
            destination.lstrip("/"),
            os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW,
            resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
        )
    )
