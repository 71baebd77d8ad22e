"""A second disposable container, on a network of its own, for a twin to try to reach.

It has the image of the container under proof and nothing but defaults, sleeps for at most five
minutes, and is removed with its network. Two files of the host stand for what it owns: one that
belongs to its root and that nobody else may read, and one with its label (SELinux).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from jaula.audit.escape import program
from jaula.audit.escape.api import Api
from jaula.audit.escape.attempts import call
from jaula.audit.escape.program import BEGIN, Entry
from jaula.security.lsm import detect

SLEEP = (Entry(BEGIN), call("pause")) * (300 // program.ALARM)
"""Five minutes: each child ends by its alarm."""

OWNED, LABELLED = "/.jaula-probe-owned", "/.jaula-probe-labelled"
"""Where the twin has the two files."""


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """``address`` on a network that the twin is not on; ``directory`` of its files on the host.

    ``label`` is what SELinux lets it run under, empty without. ``binds`` are for the twin.
    """

    address: str
    directory: str
    label: str
    binds: tuple[str, ...]


@contextmanager
def create_neighbour(api: Api, inspect: Mapping[str, Any], inside: str) -> Iterator[Neighbour]:
    """The neighbour while the block lasts. ``inside``: where its program is to be."""
    name = f"jaula-probe-{str(inspect.get('Id'))[:12]}-{os.urandom(3).hex()}"
    label = ",z" if detect.selinux() else ""
    network = api.document("POST", "/networks/create", (), {"Name": name})["Id"]
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
            where = f"/containers/{container['Id']}"
            try:
                api.request("POST", f"{where}/start")
                found = api.document("GET", f"{where}/json")
                with _files(found) as binds:
                    yield _described(found, name, binds)
            finally:
                api.request("DELETE", where, (("force", "1"), ("v", "1")))
    finally:
        api.request("DELETE", f"/networks/{network}")


def _described(found: Mapping[str, Any], network: str, binds: tuple[str, ...]) -> Neighbour:
    data = (found.get("GraphDriver") or {}).get("Data") or {}
    return Neighbour(
        address=str(found["NetworkSettings"]["Networks"][network]["IPAddress"]),
        directory=str(data.get("UpperDir") or ""),
        label=str(found.get("ProcessLabel") or ""),
        binds=binds,
    )


@contextmanager
def _files(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The two files, and the binds that show them to a twin."""
    with open(f"/proc/{found['State']['Pid']}/uid_map", encoding="ascii") as file:
        owner = int(file.read().split()[1])
    directory = _directory()
    try:
        owned = _secret(f"{directory}/owned", 0o600)
        os.chown(owned, owner, owner)
        if not detect.selinux():
            yield (f"{owned}:{OWNED}:ro",)
            return
        labelled = _secret(f"{directory}/labelled", 0o644)
        os.setxattr(labelled, "security.selinux", f"{found.get('MountLabel')}\0".encode())
        yield (f"{owned}:{OWNED}:ro,z", f"{labelled}:{LABELLED}:ro")
    finally:
        shutil.rmtree(directory)


def _directory() -> str:
    """A new directory that others may pass; for root below /run, since /tmp may be ``noexec``."""
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
    """A program as a file that any user of any container may execute."""
    directory = _directory()
    try:
        path = f"{directory}/probe"
        with open(path, "wb") as file:
            file.write(image)
        os.chmod(path, 0o755)
        yield path
    finally:
        shutil.rmtree(directory)
