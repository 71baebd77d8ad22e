"""Edits of CRIU's images by which a checkpoint would get more than its container has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from google.protobuf.message import Message

from jaula.features.checkpoint.checkpoint_store import CheckpointStore
from jaula.features.checkpoint.runtime import criu_images
from jaula.features.checkpoint.runtime.proto import images_pb2


class Edit(NamedTuple):
    """An edit of an image directory, and the words with which it is refused."""

    name: str
    words: str
    apply: Callable[[Path], None]


def sign_again(
    store: CheckpointStore, container: str, edit: Callable[[Path], None], name: str
) -> Path:
    """Make an edited copy of the checkpoint "one" with a right MAC; return its images."""
    manifest = store.read(container, "one")
    made = store.begin(container, name)
    for path in store.images(manifest).iterdir():
        shutil.copy(path, made)
    edit(made)
    return store.images(store.commit(made, msgspec.structs.replace(manifest, name=name)))


def rewrite(path: Path, message: type[Message], change: Callable[[Any], None]) -> None:
    """Change every message of a file."""
    messages = criu_images.decode(path.read_bytes(), path.name, message)
    for each in messages:
        change(each)
    path.write_bytes(criu_images.encode(path.name, messages))


def _one(made: Path, pattern: str) -> Path:
    (path,) = made.glob(pattern)
    return path


def core(change: Callable[[images_pb2.Core], None]) -> Callable[[Path], None]:
    return lambda made: rewrite(made / "core-1.img", images_pb2.Core, change)


def creds(change: Callable[[images_pb2.Credentials], None]) -> Callable[[Path], None]:
    return core(lambda each: change(each.thread_core.creds))


def mount(target: str, change: Callable[[images_pb2.Mount], None]) -> Callable[[Path], None]:
    """Change the mount at a path."""

    def edit(made: Path) -> None:
        changed: list[str] = []

        def one(each: images_pb2.Mount) -> None:
            if each.mountpoint == target:
                change(each)
                changed.append(target)

        rewrite(_one(made, "mountpoints-*.img"), images_pb2.Mount, one)
        assert changed, target

    return edit


def without_mount(target: str) -> Callable[[Path], None]:
    """Remove the mount at a path."""

    def edit(made: Path) -> None:
        path = _one(made, "mountpoints-*.img")
        messages = criu_images.decode(path.read_bytes(), path.name, images_pb2.Mount)
        kept = [each for each in messages if each.mountpoint != target]
        assert len(kept) == len(messages) - 1
        path.write_bytes(criu_images.encode(path.name, kept))

    return edit


def add(
    pattern: str, message: type[Message], make: Callable[[Any], Message]
) -> Callable[[Path], None]:
    """Add a message to a file, made of a copy of the first one."""

    def edit(made: Path) -> None:
        path = _one(made, pattern)
        messages = criu_images.decode(path.read_bytes(), path.name, message)
        copy = type(messages[0])()
        copy.CopyFrom(messages[0])
        path.write_bytes(criu_images.encode(path.name, [*messages, make(copy)]))

    return edit


def file(change: Callable[[images_pb2.File], None]) -> Callable[[Path], None]:
    """Change the first regular file that is open."""

    def edit(made: Path) -> None:
        done: list[int] = []

        def one(each: images_pb2.File) -> None:
            if each.HasField("reg") and not done:
                change(each)
                done.append(each.id)

        rewrite(made / "files.img", images_pb2.File, one)
        assert done

    return edit


def ids(change: Callable[[images_pb2.Ids, images_pb2.Ids], None]) -> Callable[[Path], None]:
    """Change the namespaces of init; the second argument are those of the host."""

    def edit(made: Path) -> None:
        (inventory,) = criu_images.decode(
            (made / "inventory.img").read_bytes(), "inventory.img", images_pb2.Inventory
        )
        rewrite(made / "ids-1.img", images_pb2.Ids, lambda each: change(each, inventory.root_ids))

    return edit


def namespace(kind: str, *, host: bool) -> Callable[[Path], None]:
    """Put init into a namespace of the host, or into none."""
    name = f"{kind}_ns_id"
    return ids(lambda each, root: setattr(each, name, getattr(root, name) if host else 0))


def _link(name: str, target: Path) -> Callable[[Path], None]:
    def edit(made: Path) -> None:
        (made / name).unlink()
        (made / name).symlink_to(target)

    return edit


def _set(**fields: Any) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        for name, value in fields.items():
            setattr(message, name, value)

    return change


def _other(each: Any, **fields: Any) -> Message:
    _set(**fields)(each)
    result: Message = each
    return result


def _new_file(name: str, data: bytes = b"") -> Callable[[Path], None]:
    def edit(made: Path) -> None:
        (made / name).write_bytes(data)

    return edit


def _truncate(name: str, size: int) -> Callable[[Path], None]:
    return lambda made: os.truncate(made / name, size)


def _all_capabilities(name: str) -> Callable[[Path], None]:
    return creds(lambda each: getattr(each, name).__setitem__(slice(None), [0xFFFFFFFF, 0x1FF]))


def _filter(change: Callable[[images_pb2.Seccomp], None]) -> Callable[[Path], None]:
    return lambda made: rewrite(made / "seccomp.img", images_pb2.Seccomp, change)


def _allow_all(image: images_pb2.Seccomp) -> None:
    for each in image.seccomp_filters:
        each.filter = b"\x06\x00\x00\x00\x00\x00\xff\x7f"


def _no_filter(each: images_pb2.Core) -> None:
    each.thread_core.ClearField("seccomp_mode")
    each.thread_core.ClearField("seccomp_filter")


def edits(canary: Path) -> tuple[Edit, ...]:
    """Return all edits; ``canary`` is a file of the host that some of them name."""
    up = "/".join([".."] * 16)
    sets = ("cap_inh", "cap_prm", "cap_eff", "cap_bnd", "cap_amb")
    kinds = ("pid", "net", "ipc", "uts", "mnt", "user", "cgroup")
    return (
        *(Edit(f"all of {name}", "capabilities that", _all_capabilities(name)) for name in sets),
        Edit("no no_new_privs", "no_new_privs", creds(_set(no_new_privs=0))),
        Edit("root of the host", "id 4000000", creds(_set(uid=4000000, euid=4000000))),
        Edit("group of the host", "id 65536", creds(lambda each: each.groups.append(65536))),
        Edit("secure bits", "secure bits", creds(_set(secbits=1 << 12))),
        Edit("LSM label", "LSM label", creds(_set(lsm_profile="unconfined_u:x"))),
        Edit("no filter", "no filter", core(_no_filter)),
        Edit("filter off", "no filter", core(lambda each: _set(seccomp_mode=0)(each.thread_core))),
        Edit("filter that allows all", "another filter", _filter(_allow_all)),
        Edit("filter that is not there", "unknown filter",
             core(lambda each: _set(seccomp_filter=99)(each.thread_core))),
        Edit("no file of filters", "unknown filter", lambda made: (made / "seccomp.img").unlink()),
        Edit("limits", "resource limit",
             core(lambda each: _set(max=1 << 62)(each.tc.rlimits.rlimits[7]))),
        Edit("OOM score", "protected from OOM",
             core(lambda each: _set(oom_score_adj=-1000)(each.tc))),
        Edit("nice", "higher priority", core(lambda each: _set(sched_nice=-20)(each.thread_core))),
        Edit("real-time priority", "real-time priority",
             core(lambda each: _set(sched_policy=1, sched_prio=99)(each.thread_core))),
        Edit("unknown cgroup", "unknown cgroup",
             core(lambda each: _set(cg_set=77)(each.thread_core))),
        Edit("all of the host's namespaces", "in the host's",
             ids(lambda each, host: each.CopyFrom(host))),
        *(Edit(f"the host's {kind} namespace", "in the host's", namespace(kind, host=True))
          for kind in kinds),
        *(Edit(f"no {kind} namespace", "in the host's", namespace(kind, host=False))
          for kind in ("user", "mnt", "net")),
        Edit("no user namespace", "user namespaces", lambda made: _one(made, "userns-*").unlink()),
        Edit("two user namespaces", "user namespaces", _new_file("userns-99.img", b"x")),
        Edit("two first processes", "first process",
             add("pstree.img", images_pb2.PstreeEntry, lambda each: _other(each, pid=9000))),
        Edit("external mount of the host", "names a directory of the host",
             mount("/dev", _set(ext_key="/"))),
        Edit("another key of a mount", "names a directory of the host",
             mount("/proc", _set(ext_key="/etc"))),
        Edit("old external mount", "names a directory of the host",
             mount("/dev", _set(ext_mount=True))),
        Edit("mount over /etc", "is not part", mount("/dev/mqueue", _set(mountpoint="/etc"))),
        Edit("mount outside", "is not part",
             mount("/dev/mqueue", _set(mountpoint=f"/dev/{up}{canary}"))),
        Edit("plugin", "needs a plugin", mount("/proc", _set(with_plugin=True))),
        Edit("another file system", "needs a plugin", mount("/proc", _set(fsname="ext4"))),
        Edit("unknown file system", "unknown file system", mount("/proc", _set(fstype=7))),
        Edit("overlay", "is an overlay", mount("/proc", _set(fstype=17, options="lowerdir=/etc"))),
        Edit("writable /sys", "is not", mount("/sys", _set(flags=0, sb_flags=0))),
        Edit("part of /proc", "shows", mount("/proc/sys", _set(root="/"))),
        Edit("part of /dev", "shows", mount("/proc/keys", _set(root=f"/{up}{canary}"))),
        Edit("part of a tmpfs", "shows", mount("/dev/shm", _set(root=f"/{up}/"))),
        Edit("shared mount", "is shared", mount("/dev/shm", _set(shared_id=1))),
        Edit("slave mount", "is shared", mount("/dev/shm", _set(master_id=1))),
        Edit("agent of cgroups", "has the option",
             mount("/proc", _set(options=f"release_agent={canary}"))),
        Edit("another hierarchy", "has the option", mount("/proc", _set(options="none,name=x"))),
        Edit("two mounts", "two mounts",
             add("mountpoints-*.img", images_pb2.Mount, lambda each: _other(each, mnt_id=9000))),
        Edit("no mask", "is missing", without_mount("/proc/keys")),
        Edit("file above", "'..'",
             file(lambda each: _set(name=f"{up}{canary}".encode())(each.reg))),
        Edit("file of the host", "outside of the container",
             file(lambda each: _set(ext=True)(each.reg))),
        Edit("file on another mount", "unknown mount",
             file(lambda each: _set(mnt_id=99999)(each.reg))),
        *(Edit(f"descriptor of kind {kind}", "is refused", file(_set(type=kind)))
          for kind in (12, 14, 16, 19, 30)),
        Edit("plugins", "plugins of CRIU", lambda made: rewrite(
            made / "inventory.img", images_pb2.Inventory,
            lambda each: each.plugins_entry.plugins.append("x"))),
        *(Edit(f"images of {name}", "unknown file", _new_file(name))
          for name in ("nftables-9.img", "iptables-9.img", "ip6tables-9.img", "route-9.img",
                       "route6-9.img", "rule-9.img", "ifaddr-9.img", "netdev-9.img", "netns-9.img",
                       "netns-ct-9.img", "netns-exp-9.img", "autofs-9.img", "bpfmap-data.img",
                       "action-script.sh", "criu.conf")),
        Edit("link", "not a plain file", _link("pages-1.img", canary)),
        Edit("empty file", "not an image", _truncate("pstree.img", 0)),
        Edit("short pages", "pages-1.img has 4096 bytes", _truncate("pages-1.img", 4096)),
        Edit("short map", "truncated", _truncate("pagemap-1.img", 20)),
        Edit("truncated file", "truncated", _truncate("core-1.img", 40)),
        Edit("oversize file", "larger", lambda made: os.truncate(made / "files.img", 65 << 20)),
        Edit("no inventory", "inventory.img", lambda made: (made / "inventory.img").unlink()),
        Edit("no process", "no task", _truncate("pstree.img", 8)),
        Edit("no core", "core-1.img is missing", lambda made: (made / "core-1.img").unlink()),
        Edit("processors", "affinity.json", _new_file("affinity.json", b"[]")),
    )  # fmt: skip
