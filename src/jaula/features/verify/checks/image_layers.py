"""Layers of the image: the root is made of the layers that the image's configuration names.

Evidence: manifest and configuration, by digest; the root's mount and inodes. The kernel shows the
layers of an id-mapped overlay as descriptors of the runtime, so their paths prove nothing. The
inodes do: overlayfs shows a file with the inode number of the layer that it is in. So a few entries
of each layer, which no higher layer hides, are looked up in the root.

Facts about overlayfs (``filesystems/overlayfs.rst``, fs/overlayfs/inode.c): the root has the inode
number of the upper directory. A directory in several layers has that of the topmost one. If layers
and upper directory are on two file systems, high bits may name the layer, and directories may have
numbers of the overlay's own. Inode numbers of EROFS are offsets in the image, so two layers have
the same ones; sizes and times are compared as well. The engine mounts layers that are EROFS images
in its own mount namespace, and this check mounts them again.

The other storage drivers copy the layers when the container is created: the root is that copy.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from jaula.config import Paths
from jaula.errors import CorruptState, JaulaError
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.image_layout import StoredImage
from jaula.features.verify.model.result import Result, Verdict, quantity, verdict_of
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.spec.image_documents import diff_id_of

_OVERLAY = "overlay"
_COMPARED = 4  # entries of a layer
_EXAMINED = 256  # entries of a layer that may be hidden
_INODE_MASK = (1 << 48) - 1  # without the bits that name a layer
_HIDES = frozenset(
    f"{space}.overlay.{name}" for space in ("trusted", "user") for name in ("opaque", "redirect")
)
_WITHIN = RESOLVE.BENEATH | RESOLVE.NO_XDEV | RESOLVE.NO_SYMLINKS
_REPLACED = {errno.EXDEV: "it is mounted over", errno.ELOOP: "it is a symbolic link"}

INFO = CheckInfo(
    id="image-layers",
    layer="image",
    title="Layers of the image",
    reason="A program of another layer than the image's runs with the image's name.",
    references=("I12", "CIS 4.5"),
    evidence="manifest and configuration by digest, inodes of the root and of the layers; with "
    "--contents every file of the layers",
    advice="jaula image verify; pull or load the image again, and recreate the container",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for the documents, one for the layers, and with ``contents`` one for files."""
    root, id = container.state_directory, str(container.inspect.get("Image") or "")
    if root is None or not id or not os.path.isdir(root):
        return
    try:
        image = container.snapshot.image_layout(root).image(id)
    except PermissionError:
        return
    yield _documents(root, id, image)
    yield _layers(container, root, image)
    if container.snapshot.contents:
        yield _contents(container, root, id)


def _documents(root: str, id: str, image: StoredImage) -> Result:
    effective = f"configuration and {quantity(len(image.manifests), 'manifest')} intact"
    return Result(
        "image documents", "image", f"image {id[7:19]}", "; ".join(image.problems) or effective,
        f"{root}/images", verdict_of(not image.problems, None),
    )  # fmt: skip


def _layers(container: AuditedContainer, root: str, image: StoredImage) -> Result:
    driver = container.inspect.get("GraphDriver") or {}
    layers = image.layers or _recorded(driver)
    directory = f"{root}/containers/{container.container_id}"
    if driver.get("Name") == _OVERLAY and (reason := _lazy(container, root, layers)):
        return Result(
            "image layers", "image", quantity(len(layers), "layer"), reason,
            f"{container.path('mountinfo')}, {root}/layers", Verdict.UNKNOWN,
        )  # fmt: skip
    if driver.get("Name") == _OVERLAY:
        problems, effective = _overlay(container, root, directory, layers)
    else:
        problems = _copy(container, directory)
        effective = "a copy of its layers"
    return Result(
        "image layers", "image", quantity(len(layers), "layer") if layers else "its layers",
        "; ".join(problems) or effective, f"{container.path('mountinfo')}, {root}/layers",
        verdict_of(not problems, None),
    )  # fmt: skip


def _recorded(driver: dict[str, object]) -> tuple[str, ...]:
    """Return the layers of the engine's record, base first."""
    data = driver.get("Data")
    paths = str(data.get("LowerDir") or "") if isinstance(data, dict) else ""
    return tuple("sha256:" + p.split("/")[-2] for p in reversed(paths.split(":")) if "/" in p)


def _lazy(container: AuditedContainer, root: str, layers: Sequence[str]) -> str:
    """Return why the inodes of a container that started before its image was whole prove nothing.

    Its layers are other file systems than those in the directory of layers.
    """
    from jaula.storage.layers.layer_store import LayerStore

    store = LayerStore(Paths(Path(root)))
    missing = [layer[7:19] for layer in layers if not store.is_on_disk(layer)]
    if missing and os.path.isdir(f"{root}/lazy"):
        return f"layer {', '.join(missing)} is not whole"
    mount = container.mount_at("/")
    several = mount is not None and "xino=on" in mount.super_options
    if several and not any(map(store.is_erofs, layers)):
        return "it was started before its image was whole"
    return ""


def _contents(container: AuditedContainer, root: str, id: str) -> Result:
    """Compare the files of the layers with their blobs, as ``jaula image verify``."""
    try:
        verified = container.snapshot.verified_image(root, id)
        holds = not verified.damages
        told = [f"{d.kind} {d.digest[7:19]} {d.path}: {d.problem}" for d in verified.damages[:3]]
        if more := len(verified.damages) - len(told):
            told.append(f"{more} more")
        effective = (
            "; ".join(told)
            or f"{quantity(verified.layers, 'layer')}, {quantity(verified.blobs, 'blob')} intact"
        )
    except JaulaError as error:
        holds, effective = False, error.message
    return Result(
        "layer contents", "image", "as in the blobs", effective, f"{root}/layers, {root}/images",
        verdict_of(holds, None),
    )  # fmt: skip


# -- a copy ---------------------------------------------------------------------------------------


def _copy(container: AuditedContainer, directory: str) -> list[str]:
    """Return what is wrong with a root that is a directory of the container's own."""
    actual, expected = os.fstat(container.root), os.stat(f"{directory}/rootfs")
    same = (actual.st_dev, actual.st_ino) == (expected.st_dev, expected.st_ino)
    return [] if same else [f"the root is not {directory}/rootfs"]


# -- overlay --------------------------------------------------------------------------------------


def _overlay(
    container: AuditedContainer, root: str, directory: str, layers: Sequence[str]
) -> tuple[list[str], str]:
    """Return what is wrong with an overlay, and a description of one that is right."""
    from jaula.storage.layers.layer_store import LayerStore

    mount = container.mount_at("/")
    if mount is None or mount.fstype != _OVERLAY:
        return [f"the root is {mount.fstype if mount else 'not a mount'}, not overlay"], ""
    stack = tuple(dict.fromkeys(reversed(layers)))  # topmost first
    problems = []
    if _mounted(f"{directory}/layers.json") != tuple(layers):
        problems.append("layers.json lists other layers")
    count = lower_count(mount)
    if count not in (0, len(stack)):
        problems.append(f"the root has {quantity(count, 'layer')}")
    upper = os.stat(f"{directory}/upper")
    if not same_inode(os.fstat(container.root).st_ino, upper.st_ino):
        problems.append(f"the upper directory is not {directory}/upper")
    higher = [f"{directory}/upper"]
    seen = 0
    store = LayerStore(Paths(Path(root)))
    with ExitStack() as mounted:
        for layer in stack:
            path = f"{root}/layers/{layer.removeprefix('sha256:')}/fs"
            try:
                status = _status(f"{root}/layers", f"{layer.removeprefix('sha256:')}/fs")
                directories = status.st_dev == upper.st_dev
                if store.is_erofs(layer):
                    path = f"/proc/self/fd/{mounted.enter_context(store.open_root(layer))}"
                    directories = False
            except OSError as error:
                what = _REPLACED.get(error.errno or 0, error.strerror)
                problems.append(f"layer {layer[7:19]}: {what}")
                continue
            except CorruptState as error:
                problems.append(f"layer {layer[7:19]}: {error.message}")
                continue
            compared, problem = compare(container.root, path, higher, directories=directories)
            seen += bool(compared)
            if problem:
                problems.append(f"layer {layer[7:19]}: {problem}")
            higher.append(path)
    hidden = len(stack) - seen
    return problems, f"{quantity(seen, 'layer')} seen in the root" + (
        f", {hidden} hidden" if hidden else ""
    )


def _mounted(path: str) -> tuple[str, ...] | None:
    """Return the layers that a start mounts, base first; None if the list is not valid."""
    try:
        with open(path, "rb") as file:
            names = msgspec.json.decode(file.read(), type=tuple[str, ...])
        return tuple(map(diff_id_of, names))
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _status(parent: str, path: str) -> os.stat_result:
    """Return the status of a directory that no mount and no symbolic link replaces."""
    base = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = openat2(base, path, os.O_PATH | os.O_DIRECTORY, resolve=_WITHIN)
    finally:
        os.close(base)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def lower_count(mount: MountInfo) -> int:
    """Return the number of lower layers in the options of an overlay, 0 if they have none. Pure."""
    count = 0
    for option in mount.super_options:
        name, _, value = option.partition("=")
        if name == "lowerdir+":
            count += 1
        elif name == "lowerdir":
            count += value.replace("\\:", "").count(":") + 1
    return count


def same_inode(actual: int, expected: int) -> bool:
    """Return whether an overlay shows an inode number of a layer as ``actual``. Pure."""
    return actual & _INODE_MASK == expected & _INODE_MASK


def compare(root: int, layer: str, higher: Sequence[str], *, directories: bool) -> tuple[int, str]:
    """Compare entries of a layer with the root; return their number, and a difference or ''.

    ``higher`` are the directories above the layer, topmost first. ``directories`` says that the
    inode numbers of directories are those of the layer.
    """
    compared = 0
    for number, (path, status) in enumerate(_entries(layer)):
        if compared == _COMPARED or number == _EXAMINED:
            break
        if stat.S_ISDIR(status.st_mode) and not directories:
            continue
        if _is_hidden(path, higher):
            continue
        try:
            fd = openat2(root, path, os.O_PATH | os.O_NOFOLLOW, resolve=_WITHIN)
        except OSError as error:
            if error.errno == errno.EXDEV:  # a mount of the container
                continue
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            actual = None
        else:
            actual = os.fstat(fd)
            os.close(fd)
        # A program inside may have replaced the entry meanwhile.
        if not _same(actual, status) and not _is_hidden(path, higher):
            return compared, f"/{path} is of another directory"
        compared += 1
    return compared, ""


def _same(actual: os.stat_result | None, expected: os.stat_result) -> bool:
    """Return whether an entry of the root is the one of the layer. Pure."""
    if actual is None or not same_inode(actual.st_ino, expected.st_ino):
        return False
    if stat.S_ISDIR(expected.st_mode):
        return True
    return (actual.st_size, actual.st_mtime_ns) == (expected.st_size, expected.st_mtime_ns)


def _entries(layer: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the entries of a layer, breadth first, without whiteouts: relative path, status."""
    pending = [""]
    for directory in pending:  # the loop extends the list
        with os.scandir(f"{layer}/{directory}") as listing:
            for entry in listing:
                path = f"{directory}/{entry.name}".lstrip("/")
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)
                elif stat.S_ISCHR(status.st_mode) and not status.st_rdev:
                    continue
                yield path, status


def _is_hidden(path: str, higher: Sequence[str]) -> bool:
    """Return whether a higher directory hides a path of a layer, or has it too."""
    return any(_hides(directory, path) for directory in higher)


def _hides(directory: str, path: str) -> bool:
    names = path.split("/")
    for name in names[:-1]:
        directory += f"/{name}"
        try:
            if not stat.S_ISDIR(os.lstat(directory).st_mode):
                return True
            if not _HIDES.isdisjoint(os.listxattr(directory, follow_symlinks=False)):
                return True
        except FileNotFoundError:
            return False
    return os.path.lexists(f"{directory}/{names[-1]}")
