"""A second disposable container on its own network, as an escape target of the twin.

It has the image of the audited container and default options, sleeps for at most five minutes, and
is removed with its network. Two files of the host stand for its property: one that only its root
may read, and one with its label (SELinux).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from jaula.features.verify.escape import program
from jaula.features.verify.escape.api import Api
from jaula.features.verify.escape.attempts import call
from jaula.features.verify.escape.program import BEGIN, Entry
from jaula.security.lsm import detect

SLEEP = (Entry(BEGIN), call("pause")) * (300 // program.ALARM)
"""Five minutes: each child ends by its alarm."""

OWNED, LABELLED = "/.jaula-probe-owned", "/.jaula-probe-labelled"
"""Paths of the two files in the twin."""


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """The target container.

    ``address`` is on a network that the twin is not on; ``directory`` has its files on the host.
    ``label`` is its SELinux label, empty without SELinux. ``binds`` are for the twin.
    """

    address: str
    directory: str
    label: str
    binds: tuple[str, ...]


@contextmanager
def create_neighbour(api: Api, inspect: Mapping[str, Any], inside: str) -> Iterator[Neighbour]:
    """Create the neighbour for the block; ``inside`` is the path of its program."""
    name = f"jaula-probe-{str(inspect.get('Id'))[:12]}-{os.urandom(3).hex()}"
    label = ",z" if detect.selinux() else ""
    body: dict[str, Any] = {"Name": name, "EnableIPv4": True}
    network = api.document("POST", "/networks/create", (), body)["Id"]
    try:
        with executable(program.build(SLEEP)) as path:
            body = {
                "Image": inspect.get("Image"),
                "User": "0",
                "Entrypoint": [inside],
                "Cmd": [],
                "HostConfig": {
                    "NetworkMode": name,
                    "Binds": [f"{path}:{inside}:ro{label}"],
                    "LogConfig": {"Type": "none", "Config": {}},
                },
            }
            container = api.document("POST", "/containers/create", (("name", name),), body)
            url = f"/containers/{container['Id']}"
            try:
                api.request("POST", f"{url}/start")
                document = api.document("GET", f"{url}/json")
                with _files(document) as binds:
                    yield _described(document, name, binds)
            finally:
                api.request("DELETE", url, (("force", "1"), ("v", "1")))
    finally:
        api.request("DELETE", f"/networks/{network}")


def _described(document: Mapping[str, Any], network: str, binds: tuple[str, ...]) -> Neighbour:
    data = (document.get("GraphDriver") or {}).get("Data") or {}
    return Neighbour(
        address=str(document["NetworkSettings"]["Networks"][network]["IPAddress"]),
        directory=str(data.get("UpperDir") or ""),
        label=str(document.get("ProcessLabel") or ""),
        binds=binds,
    )


@contextmanager
def _files(document: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Create the two files, and yield the binds that give them to a twin."""
    with open(f"/proc/{document['State']['Pid']}/uid_map", encoding="ascii") as file:
        owner = int(file.read().split()[1])
    directory = _directory()
    try:
        owned = _secret(f"{directory}/owned", 0o600)
        os.chown(owned, owner, owner)
        if not detect.selinux():
            yield (f"{owned}:{OWNED}:ro",)
            return
        labelled = _secret(f"{directory}/labelled", 0o644)
        os.setxattr(labelled, "security.selinux", f"{document.get('MountLabel')}\0".encode())
        yield (f"{owned}:{OWNED}:ro,z", f"{labelled}:{LABELLED}:ro")
    finally:
        shutil.rmtree(directory)


def _directory() -> str:
    """Create a directory that all users may traverse.

    Root's is below /run, because /tmp may be ``noexec``.
    """
    directory = tempfile.mkdtemp(
        prefix="jaula-probe-", dir="/run" if os.access("/run", os.W_OK) else None
    )
    os.chmod(directory, 0o755)
    return directory


def _secret(path: str, mode: int) -> str:
    with open(path, "w", encoding="ascii") as file:
        file.write("only one container may read this\n")
    os.chmod(path, mode)
    return path


@contextmanager
def executable(image: bytes) -> Iterator[str]:
    """Create a file of the program that any user of any container may execute."""
    directory = _directory()
    try:
        path = f"{directory}/probe"
        with open(path, "wb") as file:
            file.write(image)
        os.chmod(path, 0o755)
        yield path
    finally:
        shutil.rmtree(directory)
