"""What the engine has made for a container of an external runtime, to know its process by.

A runtime reports a pid. It may be the monitor of a virtual machine, whose root and namespaces are
the host's. So the root and the namespaces that the engine has made are written before the runtime
is called, and a process is the container's only if it is in them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

import msgspec

FILE = "identity.json"


class Identity(msgspec.Struct, frozen=True):
    """The root as device and inode number, and the inode numbers of namespaces by OCI type."""

    root: tuple[int, int]
    namespaces: dict[str, int] = {}


def write(run_dir: str, root: str, namespaces: Mapping[str, str]) -> None:
    """Write the identity of a root and of namespaces, by their paths."""
    status = os.stat(root)
    inodes = {kind: os.stat(path).st_ino for kind, path in namespaces.items()}
    path = f"{run_dir}/{FILE}"
    with open(f"{path}.new", "wb", buffering=0) as file:
        file.write(msgspec.json.encode(Identity((status.st_dev, status.st_ino), inodes)))
    os.rename(f"{path}.new", path)


def read(run_dir: str) -> Identity | None:
    """Return the identity in a run directory; None if a former engine has written none.

    :raises ValueError: when the file is damaged.
    """
    try:
        with open(f"{run_dir}/{FILE}", "rb") as file:
            return msgspec.json.decode(file.read(), type=Identity)
    except FileNotFoundError:
        return None


def problem(
    made: Identity | None,
    *,
    root: tuple[int, int] | None,
    namespaces: Mapping[str, int],
    host_root: tuple[int, int],
    host: Mapping[str, Collection[int]],
) -> str:
    """Return why a process is not the container's, '' if it is. Pure.

    ``root`` and ``namespaces`` are those of the process, ``host_root`` and ``host`` those of the
    engine and the host: by OCI type, without the types that the container shares with the host.
    """
    if root is not None and (root != made.root if made is not None else root == host_root):
        return "its root is not the container's"
    for kind, inode in namespaces.items():
        if made is not None and kind in made.namespaces:
            if inode != made.namespaces[kind]:
                return f"its {kind} namespace is not the container's"
        elif inode in host.get(kind, ()):
            return f"its {kind} namespace is the host's"
    return ""
