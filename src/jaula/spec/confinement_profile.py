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

import math
import os
import posixpath
import re
from typing import Annotated, Any, Literal

import msgspec

from jaula.errors import InvalidRequest
from jaula.sha256 import sha256
from jaula.spec import egress, listen, toml

VERSION = 1
MAX_SIZE = 1 << 20  # bytes

# Whole texts: ``$`` would allow a line break at the end, which begins a line of a generated file.
_USER = r"[a-zA-Z0-9_.@+][a-zA-Z0-9_.@+-]{0,127}\$?"
# A description says what a text is, and after the colon what it may have.
Name = Annotated[str, msgspec.Meta(
    pattern=r"\A[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}\Z",
    description="the name of a profile: 1 to 128 of a-z, A-Z, 0-9, _, . and -",
)]  # fmt: skip
Path = Annotated[str, msgspec.Meta(
    pattern=r"\A/[^\0]*\Z", max_length=4096, description="an absolute path: /PATH without NUL"
)]  # fmt: skip
MountPath = Annotated[str, msgspec.Meta(
    pattern=r"\A/[^\0:]*\Z",
    max_length=4096,
    description="the path of a mount: /PATH without a colon and NUL",
)]  # fmt: skip
MountOptions = Annotated[str, msgspec.Meta(
    pattern=r"\A[a-zA-Z0-9_=,.%-]{0,256}\Z",
    description="a list of mount options: at most 256 of a-z, A-Z, 0-9, _, =, comma, ., % and -",
)]  # fmt: skip
Capability = Annotated[str, msgspec.Meta(
    pattern=r"\A[a-zA-Z0-9_]{1,64}\Z",
    description="the name of a capability: 1 to 64 of a-z, A-Z, 0-9 and _",
)]  # fmt: skip
SystemCall = Annotated[str, msgspec.Meta(
    pattern=r"\A[a-z0-9_]{1,64}\Z",
    description="the name of a system call: 1 to 64 of a-z, 0-9 and _",
)]  # fmt: skip
User = Annotated[str, msgspec.Meta(
    pattern=rf"\A({_USER}(:{_USER})?)?\Z",
    description="a user: USER or USER:GROUP, each a number or at most 128 of a-z, A-Z, 0-9, _, .,"
    " @, + and -",
)]  # fmt: skip
Image = Annotated[str, msgspec.Meta(
    pattern=r"\A[a-zA-Z0-9_./:@\[\]+-]{0,4096}\Z",
    description="a reference of an image: NAME[:TAG][@DIGEST]",
)]  # fmt: skip
_NODE = r"[^:\0-\x20\x7f]"
_DEVICE = re.compile(rf"(?P<host>/dev/{_NODE}+)(:(?P<path>/{_NODE}*)(:[rwm]{{1,3}})?)?")
Architecture = Literal["x86_64", "x86", "x32", "aarch64"]


Field = Annotated[str, msgspec.Meta(
    pattern=r"\A[a-z]+([.-][a-z]+)*\Z",
    max_length=64,
    description="a field of a profile: words of a-z with . or - between them",
)]  # fmt: skip

_TEXTS: tuple[Any, ...] = (
    Name,
    Path,
    MountPath,
    MountOptions,
    Capability,
    SystemCall,
    User,
    Image,
    Field,
)
_MISMATCH = re.compile(
    r"Expected `str` matching regex (.+) - at (`key` in )?`(\$[^`]*)`", re.DOTALL
)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


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

    user: User = ""
    no_new_privileges: bool = True


class Seccomp(_Struct, frozen=True, kw_only=True):
    """Allowed system calls by architecture; all others fail with EPERM.

    Those of ``unavailable`` fail with ENOSYS, as they did in the records: a C library then uses an
    older call (clone3), and for EPERM it would not.
    """

    syscalls: dict[Architecture, tuple[SystemCall, ...]] = {}
    unavailable: dict[Architecture, tuple[SystemCall, ...]] = {}


class Files(_Struct, frozen=True, kw_only=True):
    """Files: the root, writable mounts, and the paths that Landlock allows.

    An empty list does not restrict its kind of access: without ``read`` all files may be read, and
    without ``execute`` all that may be read may be executed. ``write`` includes reading, and in a
    directory making and removing files; ``execute`` includes reading.
    """

    read_only_root: bool = True
    tmpfs: dict[MountPath, MountOptions] = {}  # as in --tmpfs
    volumes: tuple[MountPath, ...] = ()
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
    reader has to know and that no item says, such as a path that the records lack. ``incomplete``
    are the fields whose list losses or its length left out, so that they restrict nothing.
    """

    version: Literal[1] = 1
    name: Name
    image: Image = ""
    guessed: bool = False
    sources: tuple[Source, ...] = ()
    process: Process = Process()
    capabilities: tuple[Capability, ...] = ()  # without CAP_
    seccomp: Seccomp = Seccomp()
    files: Files = Files()
    network: Network = Network()
    limits: Limits = Limits()
    devices: tuple[str, ...] = ()  # PATH[:PATH_IN_CONTAINER[:PERMISSIONS]]
    notes: tuple[str, ...] = ()
    incomplete: tuple[Field, ...] = ()
    evidence: dict[str, dict[str, Evidence]] = {}


def load(data: bytes, name: str) -> Profile:
    """Return the profile of a TOML file; ``name`` is the file's name for errors.

    :raises InvalidRequest: when it is too large, not TOML, or not a profile.
    """
    try:
        document = toml.loads(data, MAX_SIZE)
        try:
            profile = msgspec.convert(document, Profile)
        except msgspec.ValidationError as error:
            raise _mismatch(str(error), document) from None
        check(profile)
    except ValueError as error:  # of TOML
        raise InvalidRequest(f"profile {name}: {error}") from None
    except InvalidRequest as error:
        raise InvalidRequest(f"profile {name}: {error.message}", hint=error.hint) from None
    return profile


def _mismatch(message: str, document: dict[str, Any]) -> InvalidRequest:
    """Return the error of a document in words: msgspec has only the expression, not the text."""
    match = _MISMATCH.fullmatch(message)
    metas = (text.__metadata__[0] for text in _TEXTS)
    meta = next((each for each in metas if match and repr(each.pattern) == match[1]), None)
    if match is None or meta is None:
        return InvalidRequest(message)
    texts = _texts(document, match[3], of_keys=match[2] is not None)
    found = next((text for text in texts if not re.search(meta.pattern, text)), "")
    what, _, permitted = meta.description.partition(": ")
    return InvalidRequest(f"{found[:80]!r} at `{match[3]}` is not {what}", hint=permitted)


def _texts(document: Any, place: str, *, of_keys: bool) -> list[str]:
    """Return the texts at a place of msgspec, which has ``[...]`` for each value of a table."""
    values = [document]
    for name, index in _STEP.findall(place):
        if name:
            values = [each[name] for each in values if isinstance(each, dict) and name in each]
        elif index == "...":
            values = [value for each in values if isinstance(each, dict) for value in each.values()]
        else:
            number = int(index)
            values = [e[number] for e in values if isinstance(e, list) and number < len(e)]
    if of_keys:
        values = [key for each in values if isinstance(each, dict) for key in each]
    return [value for value in values if isinstance(value, str)]


_known: dict[str, Profile | InvalidRequest] = {}
"""The results of the last documents that were parsed, by their text."""
_KNOWN_LIMIT = 32


def load_text(text: str) -> Profile:
    """Return the profile of a document in a request or a stored container, which is read often.

    :raises InvalidRequest: as :func:`load`.
    """
    known = _known.get(text)
    if known is None:
        try:
            known = load(text.encode(), "of the request")
        except InvalidRequest as error:
            known = error
    remember(text, known)
    if isinstance(known, InvalidRequest):
        raise InvalidRequest(known.message, hint=known.hint)
    return known


def is_known(text: str) -> bool:
    """Return whether :func:`load_text` has to parse nothing."""
    return text in _known


def remember(text: str, result: Profile | InvalidRequest) -> None:
    """Let :func:`load_text` return or raise ``result`` without parsing the text."""
    _known.pop(text, None)
    _known[text] = result
    while len(_known) > _KNOWN_LIMIT:
        _known.pop(next(iter(_known)), None)


def check(profile: Profile) -> None:
    """Check what no pattern of a field tells: each item, by the grammar of its kind. Pure.

    :raises InvalidRequest: when an item is not valid.
    """
    for device in profile.devices:
        if not is_device(device):
            raise InvalidRequest(
                f"invalid device {device[:80]!r}",
                hint="/dev/NAME, /dev/NAME:PATH_IN_CONTAINER or /dev/NAME:PATH_IN_CONTAINER:rwm",
            )
    for path in (*profile.files.tmpfs, *profile.files.volumes):
        if not is_mount_path(path):
            raise InvalidRequest(f"invalid path of a mount {path[:80]!r}: it is not normalized")
    egress.parse(profile.network.egress or ())
    listen.parse(profile.network.listen or ())
    if math.isnan(profile.limits.cpus):
        raise InvalidRequest("limits.cpus is not a number")


def is_path(text: str) -> bool:
    """Return whether a text is an absolute path as lists of files have it. Pure."""
    return text.startswith("/") and "\0" not in text and len(text) <= 4096


def is_mount_path(text: str) -> bool:
    """Return whether a path can be that of a mount: a colon would begin its options. Pure."""
    return is_path(text) and ":" not in text and _is_normalized(text)


def is_device(item: str) -> bool:
    """Return whether an item is one of a device below /dev. Pure."""
    match = _DEVICE.fullmatch(item)
    if match is None or not item.isprintable():
        return False
    access = item.rpartition(":")[2] if item.count(":") == 2 else ""
    paths = [match["host"], match["path"] or match["host"]]
    return all(map(_is_normalized, paths)) and len(set(access)) == len(access)


def _is_normalized(path: str) -> bool:
    return posixpath.normpath(path) == (path.rstrip("/") or "/") and not path.startswith("//")


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
