"""Handmade images: hostile ones, and one with the host's own tools."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from harness.engine import PrivateEngine

APPLETS = ("sh", "sleep", "cat", "ls", "true", "id", "echo", "readlink", "touch", "mkdir", "ln")


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info, b""


def file(name: str, content: bytes = b"", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.mode, info.size = mode, len(content)
    return info, content


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    return info, b""


def fifo(name: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.FIFOTYPE, 0o644
    return info, b""


Entry = tuple[tarfile.TarInfo, bytes]


def archive(entries: Iterable[Entry]) -> bytes:
    """Return a tar of exactly these entries, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def busybox_entries(without: Sequence[str] = ()) -> list[Entry]:
    """Return a small root file system; ``without`` names entries that the test adds itself."""
    source = shutil.which("busybox")
    assert source is not None, "busybox-static is not installed"
    with open(source, "rb") as program:
        binary = program.read()
    entries = [directory(name) for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root")]
    entries += [file("bin/busybox", binary, 0o755)]
    entries += [link(f"bin/{applet}", "busybox") for applet in APPLETS]
    entries += [
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        file("etc/group", b"root:x:0:\n"),
    ]
    return [entry for entry in entries if entry[0].name not in without]


def import_image(engine: PrivateEngine, name: str, entries: Iterable[Entry]) -> str:
    """Import an image of the entries and return its name."""
    path = f"/images/create?fromSrc=-&repo={name}&tag=latest"
    reply = engine.request(
        "POST", path, archive(entries), headers={"Content-Type": "application/x-tar"}
    )
    assert reply.status == 200 and b'"error"' not in reply.body, reply
    return name


def host_tools(engine: PrivateEngine) -> tuple[str, ...]:
    """Return words for ``run`` that bind the host's /usr, Python included, read-only."""
    if Path("/sys/fs/selinux/enforce").exists():
        pytest.skip("under SELinux no container may execute the host's programs")
    merged = [link("lib", "usr/lib"), link("lib64", "usr/lib64"), directory("usr")]
    name = "host-tools"
    if engine.request("GET", f"/images/{name}/json").status == 404:
        import_image(engine, name, busybox_entries() + merged)
    return ("-v", "/usr:/usr:ro", name)
