"""The recipes of ``debian[:suite]`` and ``ubuntu[:suite]``: mmdebstrap from the host's mirror.

If the host runs that distribution, mmdebstrap takes the mirror from the host's apt sources.
Otherwise it is the distribution's public mirror, and its keyring must be installed
(``debian-archive-keyring``, ``ubuntu-keyring``). Signatures are checked in every case.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.request import urlopen

import msgspec

from jaula.errors import InvalidRequest, Unavailable
from jaula.images.archive.write import PATH, write_image
from jaula.images.bootstrap.host_packages import find, run
from jaula.images.image_platform import host
from jaula.spec.image_documents import ImageConfig

_SUITE = re.compile(r"[a-z][a-z0-9.-]{0,40}", re.ASCII)
_RELEASE = Path("/etc/os-release")
_LISTS = Path("/var/lib/apt/lists")
_INCLUDED = "iputils-ping,procps"


class _Distribution(msgspec.Struct, frozen=True):
    name: str
    suite: str  # the default if the host runs another distribution
    keyring: str
    keyring_package: str
    mirror: str
    ports_mirror: str  # for architectures other than amd64 and 386
    components: str


_DEBIAN = _Distribution(
    "debian",
    "trixie",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "debian-archive-keyring",
    "http://deb.debian.org/debian",
    "http://deb.debian.org/debian",
    "main",
)
_UBUNTU = _Distribution(
    "ubuntu",
    "noble",
    "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    "ubuntu-keyring",
    "http://archive.ubuntu.com/ubuntu",
    "http://ports.ubuntu.com/ubuntu-ports",
    "main,universe",
)


def debian(suite: str, out: Path, scratch: Path, progress: Callable[[str], None]) -> str:
    """Write the image's archive to ``out`` and return its reference."""
    return _bootstrap(_DEBIAN, suite, out, scratch, progress)


def ubuntu(suite: str, out: Path, scratch: Path, progress: Callable[[str], None]) -> str:
    """Write the image's archive to ``out`` and return its reference."""
    return _bootstrap(_UBUNTU, suite, out, scratch, progress)


def host_release(text: str) -> tuple[str, str]:
    """Return ``ID`` and ``VERSION_CODENAME`` of an ``os-release`` file (os-release(5)).

    They are empty if absent.
    """
    fields = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            fields[name] = value.strip("\"'")
    return fields.get("ID", ""), fields.get("VERSION_CODENAME", "")


def _bootstrap(
    distribution: _Distribution,
    suite: str,
    out: Path,
    scratch: Path,
    progress: Callable[[str], None],
) -> str:
    host_name, host_suite = host_release(_RELEASE.read_text() if _RELEASE.exists() else "")
    own = host_name == distribution.name
    default = (own and host_suite) or distribution.suite
    selected = default if suite in ("", "latest") else suite
    if not _SUITE.fullmatch(selected):
        raise InvalidRequest(f"{selected[:60]!r} is not a valid suite name")
    layer = scratch / "layer.tar"
    program = find("mmdebstrap", "mmdebstrap")
    command = [program, "--variant=minbase", "--format=tar", f"--include={_INCLUDED}", "--quiet"]
    command += _reproducible()
    mirror: list[str] = []
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or 0) or _host_time(selected)
    if not (own and selected == host_suite):
        if not Path(distribution.keyring).exists():
            raise Unavailable(
                f"the signing keys of {distribution.name} are not on this machine",
                hint=f"apt-get install {distribution.keyring_package}",
            )
        common = host().architecture in ("amd64", "386")
        mirror = [distribution.mirror if common else distribution.ports_mirror]
        command += [f"--keyring={distribution.keyring}", f"--components={distribution.components}"]
        if "SOURCE_DATE_EPOCH" not in os.environ:
            seconds = _mirror_time(mirror[0], selected)
    progress(f"building {distribution.name} {selected} with mmdebstrap; this takes about a minute")
    run(
        [*command, selected, str(layer), *mirror],
        what=f"building {distribution.name} {selected}",
        cwd=scratch if os.geteuid() == 0 else Path("/"),
        environment={"SOURCE_DATE_EPOCH": str(seconds), "TMPDIR": _temporary(scratch)},
        hint="check that the package mirror is reachable and has this suite",
    )
    names = [f"{distribution.name}:{selected}"]
    if selected == default:
        names.append(f"{distribution.name}:latest")
    progress("writing the image")
    write_image(
        out,
        layer,
        ImageConfig(env=(PATH,), cmd=("bash",)),
        names,
        seconds=seconds,
        made_by=f"jaula image bootstrap {distribution.name}:{selected}",
    )
    return names[0]


def release_time(text: str) -> int | None:
    """Return the ``Date`` of a Release file in seconds since the epoch, or None without one."""
    for line in text.splitlines():
        if line.startswith("Date:"):
            try:
                return int(parsedate_to_datetime(line.partition(":")[2].strip()).timestamp())
            except ValueError:
                return None
    return None


def _temporary(scratch: Path) -> str:
    """Return the directory in which mmdebstrap unpacks; mmdebstrap removes its files.

    As an ordinary user it unpacks as another of the user's ids. That id cannot traverse a directory
    that only the user may enter.
    """
    return str(scratch) if os.geteuid() == 0 else tempfile.gettempdir()


def _host_time(suite: str) -> int:
    """Return the time of the host's package lists of the suite, else the time of ``os-release``."""
    lists = sorted(_LISTS.glob(f"*_dists_{suite}*_*Release"))
    times = [release_time(path.read_text(errors="replace")[:100_000]) for path in lists]
    return max((time for time in times if time), default=int(_RELEASE.stat().st_mtime))


def _mirror_time(mirror: str, suite: str) -> int:
    """Return the time of the mirror's suite, used for files that the build creates.

    Only a time is taken from here, and a time in the future is capped at now. mmdebstrap checks the
    signatures of the packages.
    """
    address = f"{mirror}/dists/{suite}/Release"
    hint = "check that the package mirror is reachable and has this suite"
    try:
        with urlopen(address, timeout=20) as response:
            text = response.read(100_000).decode(errors="replace")
    except OSError as error:
        raise Unavailable(f"cannot read {address}: {error}", hint=hint) from error
    return min(release_time(text) or 0, int(time.time()))


def _reproducible() -> list[str]:
    """Return options that remove files which differ between builds or identify this machine."""
    paths = (
        "/var/log/apt",
        "/var/log/dpkg.log",
        "/var/log/bootstrap.log",
        "/var/log/alternatives.log",
        "/var/cache/ldconfig/aux-cache",
        "/var/lib/dbus/machine-id",
    )
    hooks = [f'rm -rf "$1"{path}' for path in paths]
    hooks.append('[ ! -e "$1"/etc/machine-id ] || : > "$1"/etc/machine-id')
    hooks.append('rm -f "$1"/etc/hostname "$1"/etc/resolv.conf')
    return [f"--customize-hook={hook}" for hook in hooks]
