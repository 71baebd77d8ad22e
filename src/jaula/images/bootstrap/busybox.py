"""The recipe of the ``busybox`` image: one static program under the names of its applets.

The program is Debian's ``busybox-static``: the installed file if that package is installed, else
downloaded with the host's apt, which checks signatures.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jaula.errors import InvalidRequest, Unavailable
from jaula.images.archive.write import PATH, write_image
from jaula.images.bootstrap.host_packages import find, run
from jaula.spec.image_documents import ImageConfig
from jaula.storage.tar.tar_entry import DIRECTORY, HARD_LINK
from jaula.storage.tar.tar_writer import TarWriter, new_entry

_PATHS = ("usr/bin/busybox", "bin/busybox")
_DIRECTORIES = (
    ("", 0o755),
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("root", 0o700),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/spool", 0o755),
    ("var/spool/mail", 0o755),
    ("var/www", 0o755),
)
_FILES = {
    "etc/group": "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\ntty:x:5:\nmail:x:8:\n"
    "www-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "bin:x:2:2:bin:/bin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\n"
    "nobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n"
    "bin:*:19000:0:99999:7:::\nwww-data:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n",
}


def busybox(suite: str, out: Path, scratch: Path, progress: Callable[[str], None]) -> str:
    """Write the image's archive to ``out`` and return its reference."""
    if suite not in ("", "latest"):
        raise InvalidRequest(f"busybox has no suites, but {suite!r} was requested")
    program = _program(scratch, progress)
    applets = sorted(
        set(run([str(program), "--list"], what="listing the applets of busybox").split())
    )
    if "sh" not in applets:
        raise Unavailable(f"{program} lists {len(applets)} applets, but not sh")
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or program.stat().st_mtime)
    progress(f"writing the image with {len(applets)} applets")
    layer = scratch / "layer.tar"
    _write_layer(layer, program, [applet for applet in applets if applet != "busybox"], seconds)
    config = ImageConfig(env=(PATH,), cmd=("sh",))
    write_image(
        out,
        layer,
        config,
        ["busybox:latest"],
        seconds=seconds,
        made_by="jaula image bootstrap busybox",
    )
    return "busybox:latest"


def _program(scratch: Path, progress: Callable[[str], None]) -> Path:
    installed = [Path("/") / path_name for path_name in _PATHS]
    if Path("/var/lib/dpkg/info/busybox-static.list").exists():
        for path in installed:
            if path.is_file():
                progress(f"using the installed package's {path}")
                return path
    progress("downloading the package busybox-static")
    run(
        [
            find("apt-get", "apt"),
            "-q",
            "-o",
            "APT::Sandbox::User=root",
            "download",
            "busybox-static",
        ],
        what="downloading the package busybox-static",
        cwd=scratch,
        hint="run apt-get update, and check that the host's package mirror is reachable",
    )
    packages = list(scratch.glob("busybox-static_*.deb"))
    if len(packages) != 1:
        raise Unavailable(f"apt-get downloaded {len(packages)} packages of busybox-static")
    run(
        [find("dpkg-deb", "dpkg"), "-x", str(packages[0]), "package"],
        what="unpacking the package busybox-static",
        cwd=scratch,
    )
    for path_name in _PATHS:
        path = scratch / "package" / path_name
        if path.is_file() and not path.is_symlink():
            return path
    raise Unavailable("the package busybox-static does not contain busybox")


def _write_layer(out: Path, program: Path, applets: list[str], seconds: int) -> None:
    content = program.read_bytes()
    with open(out, "xb") as file:
        writer = TarWriter(file.write)
        for directory, mode in _DIRECTORIES:
            writer.add(new_entry("./" + directory, DIRECTORY, mode=mode, mtime=seconds))
        writer.add(
            new_entry("./bin/busybox", mode=0o755, size=len(content), mtime=seconds), (content,)
        )
        for applet in applets:
            writer.add(
                new_entry(
                    f"./bin/{applet}", HARD_LINK, mode=0o755, link="./bin/busybox", mtime=seconds
                )
            )
        writer.add(
            new_entry("./usr/bin/env", HARD_LINK, mode=0o755, link="./bin/busybox", mtime=seconds)
        )
        for name, text in _FILES.items():
            mode = 0o600 if name == "etc/shadow" else 0o644
            data = text.encode()
            writer.add(new_entry("./" + name, mode=mode, size=len(data), mtime=seconds), (data,))
        writer.finish()
