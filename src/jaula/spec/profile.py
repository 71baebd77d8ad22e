"""The profile of a container: a TOML document that says the least that it needs.

Everything that a profile does not name is refused: capabilities, system calls, files to write,
programs to execute, addresses to connect to, devices. Lists are sorted and without duplicates, so
two profiles of the same needs are the same text.

The table ``evidence`` has, by section and item, how often a record has it and by which programs. It
does not change what a profile allows; a reader of the file sees it as comments of the items too.

Facts about paths: those of ``files`` are absolute, normalized paths inside the container. A path
that ends with ``/`` includes everything below it.
"""

from __future__ import annotations

import os
import tomllib
from typing import Annotated, Literal

import msgspec

from jaula.errors import InvalidRequest
from jaula.sha256 import sha256

VERSION = 1
MAX_SIZE = 1 << 20  # bytes

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$")]
Path = Annotated[str, msgspec.Meta(pattern=r"^/", max_length=4096)]
Architecture = Literal["x86_64", "x86", "x32", "aarch64"]


class _Struct(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True,
    rename="kebab",
):  # fmt: skip
    pass


class Source(_Struct, frozen=True, kw_only=True):
    """A record that the profile was made from. ``head`` is the hash of its last line.

    ``start_recorded``: the record has the first program of the container from its execve(2) on.
    ``losses`` is what the record lacks, by table: occurrences, entries and texts.
    """

    head: str
    container: str
    image_id: str
    time: str  # RFC 3339, of the record's start
    duration: float = 0.0  # seconds
    mechanism: str = ""
    start_recorded: bool = True
    losses: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}


class Process(_Struct, frozen=True, kw_only=True):
    """The process: the user as in ``docker run --user``, '' for that of the image."""

    user: str = ""
    no_new_privileges: bool = True


class Seccomp(_Struct, frozen=True, kw_only=True):
    """Allowed system calls by architecture; all others fail with EPERM.

    Those of ``unavailable`` fail with ENOSYS, as they did in the records: a C library then uses an
    older call (clone3), and for EPERM it would not.
    """

    syscalls: dict[Architecture, tuple[str, ...]] = {}
    unavailable: dict[Architecture, tuple[str, ...]] = {}


class Files(_Struct, frozen=True, kw_only=True):
    """Files: the root, writable mounts, and the paths that Landlock allows.

    An empty list does not restrict its kind of access: without ``read`` all files may be read, and
    without ``execute`` all that may be read may be executed. ``write`` includes reading, and in a
    directory making and removing files; ``execute`` includes reading.
    """

    read_only_root: bool = True
    tmpfs: dict[Path, str] = {}  # options of the mount, as in --tmpfs
    volumes: tuple[Path, ...] = ()
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    execute: tuple[Path, ...] = ()
    masked: tuple[Path, ...] = ()  # in addition to the engine's list


class Network(_Struct, frozen=True, kw_only=True):
    """The network. Items are ``tcp:ADDRESS:PORT`` or ``udp:NAME:PORT``; a network for ADDRESS too.

    ``listen`` is None if connections from others are not restricted, and ``egress`` if connections
    to the outside are not. Port 0 of ``listen`` is any that the kernel selects.
    """

    mode: Literal["", "none"] = ""
    listen: tuple[str, ...] | None = None  # tcp:PORT, udp:PORT
    egress: tuple[str, ...] | None = None


class Limits(_Struct, frozen=True, kw_only=True):
    """Ceilings: the peaks of the records with a margin. 0 is the engine's default."""

    pids: Annotated[int, msgspec.Meta(ge=0, le=1 << 22)] = 0
    memory: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)] = 0  # bytes
    cpus: Annotated[float, msgspec.Meta(ge=0, le=65536)] = 0.0


class Evidence(_Struct, frozen=True, kw_only=True):
    """Where an item comes from: how often, in how many records, by which programs."""

    count: Annotated[int, msgspec.Meta(ge=0)] = 0
    records: Annotated[int, msgspec.Meta(ge=0)] = 0
    programs: tuple[str, ...] = ()
    reason: str = ""  # a system call, a path, the margin of a limit, the library that imports it


class Profile(_Struct, frozen=True, kw_only=True):
    """The least that a container needs.

    ``guessed``: it comes from the files of the image, without a record. ``notes`` are facts that a
    reader has to know and that no item says, such as a path that the records lack.
    """

    version: Literal[1] = 1
    name: Name
    image: str = ""
    guessed: bool = False
    sources: tuple[Source, ...] = ()
    process: Process = Process()
    capabilities: tuple[str, ...] = ()  # without CAP_
    seccomp: Seccomp = Seccomp()
    files: Files = Files()
    network: Network = Network()
    limits: Limits = Limits()
    devices: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    evidence: dict[str, dict[str, Evidence]] = {}


def load(data: bytes, name: str) -> Profile:
    """Return the profile of a TOML file; ``name`` is the file's name for errors.

    :raises InvalidRequest: when it is too large, not TOML, or not a profile.
    """
    if len(data) > MAX_SIZE:
        raise InvalidRequest(
            f"profile {name} has {len(data)} bytes; at most {MAX_SIZE} are allowed"
        )
    try:
        return msgspec.convert(tomllib.loads(data.decode("utf-8-sig")), Profile)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError,
            RecursionError) as error:  # fmt: skip
        raise InvalidRequest(f"profile {name}: {error}") from None


# -- documents in requests -------------------------------------------------------------------------

_PACKAGED = os.path.join(os.path.dirname(__file__), "profiles")


def is_document(text: str) -> bool:
    """Return whether a value of ``HostConfig.Profile`` is a document; otherwise it is a name."""
    return "\n" in text or "=" in text


def digest(text: str) -> str:
    """Return the digest of a document, by which ``inspect`` identifies it."""
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def packaged_names() -> tuple[str, ...]:
    """Return the names of the documents that are part of the package."""
    names = os.listdir(_PACKAGED) if os.path.isdir(_PACKAGED) else []
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def packaged(name: str, others: tuple[str, ...] = ()) -> str:
    """Return the document of a name. ``others`` are further valid names, for the error.

    :raises InvalidRequest: when there is no such document.
    """
    names = packaged_names()
    if name not in names:
        raise InvalidRequest(
            f"unknown profile {name[:64]!r}",
            hint=f"must be one of {', '.join((*others, *names))}, or a file: a path with a slash"
            " or the ending .toml",
        )
    with open(os.path.join(_PACKAGED, f"{name}.toml"), encoding="utf-8") as file:
        return file.read()
