"""What a Dockerfile says, one structure for each instruction.

Source: the Dockerfile reference. ``place`` is where an instruction stands in its file. ``source``
is its canonical text: two instructions with the same text mean the same, whatever their spacing,
comments and line breaks were; here-documents follow it line by line.

Variables are still in the fields as they were written until :func:`~.expansion.expand` puts in
their values; quotes and escapes go at that time as well.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from jaula.spec import image

Pairs = tuple[tuple[str, str], ...]


class Location(msgspec.Struct, frozen=True):
    """Lines of a file, the first is 1, both ends belong to it."""

    first: int
    last: int


class Heredoc(msgspec.Struct, frozen=True):
    """A here-document: ``content`` ends with a line break unless it is empty.

    ``expand`` says whether variables in it are replaced (its delimiter was not quoted). The tabs
    that ``<<-`` takes away are gone.
    """

    name: str
    content: str
    expand: bool


class Instruction(msgspec.Struct, frozen=True):
    """Common to all."""

    place: Location
    source: str

    @property
    def word(self) -> str:
        """The instruction's name as people write it: ``RUN``."""
        return type(self).__name__.upper()

    @property
    def headline(self) -> str:
        """The canonical text without its here-documents."""
        return self.source.partition("\n")[0]


class From(Instruction, frozen=True):
    """``name`` is lower case, '' where the stage has none; ``platform`` '' where none is asked."""

    base: str
    platform: str = ""
    name: str = ""


class Arg(Instruction, frozen=True):
    """Names and defaults; None where there is no default."""

    pairs: tuple[tuple[str, str | None], ...]


class Env(Instruction, frozen=True):
    pairs: Pairs


class Label(Instruction, frozen=True):
    pairs: Pairs


class MountKind(StrEnum):
    BIND = "bind"
    CACHE = "cache"
    TMPFS = "tmpfs"
    SECRET = "secret"
    SSH = "ssh"


class Sharing(StrEnum):
    """Of a cache: by all at once, one each, or one after the other."""

    SHARED = "shared"
    PRIVATE = "private"
    LOCKED = "locked"


class RunMount(msgspec.Struct, frozen=True, kw_only=True):
    """``RUN --mount``.

    ``target`` is '' for a secret or socket that goes to its usual place. ``origin`` is ``from``: a
    stage's name or number, a context's or an image's name, '' for the build's context. ``id`` has
    its default filled in. ``mode`` None is the kind's usual; ``size`` is bytes, 0 for no limit.
    ``env`` is the variable that gets a secret's content, '' for a file.
    """

    kind: MountKind = MountKind.BIND
    target: str = ""
    source: str = ""
    origin: str = ""
    writable: bool = False
    id: str = ""
    sharing: Sharing = Sharing.SHARED
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int = 0
    required: bool = False
    env: str = ""


class Network(StrEnum):
    DEFAULT = "default"
    NONE = "none"
    HOST = "host"


class Security(StrEnum):
    SANDBOX = "sandbox"
    INSECURE = "insecure"


class Run(Instruction, frozen=True):
    """``command`` is one text for the shell where ``shell_form``, else the program's arguments.

    Here-documents are in that text already, as the shell has to see them. Where the command is
    nothing but one that starts with ``#!``, ``script`` holds it: it is to be executed as a file of
    its delimiter's name, and ``command`` is empty. ``flags`` are the line's, as they were written.
    """

    command: tuple[str, ...]
    shell_form: bool
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[RunMount, ...] = ()
    network: Network = Network.DEFAULT
    security: Security = Security.SANDBOX
    script: str = ""
    flags: tuple[str, ...] = ()


class Copy(Instruction, frozen=True):
    """``heredocs`` are further sources: files of that name and content.

    ``origin`` is ``--from``: a stage's name or number, a context's or an image's name, '' for the
    build's context. ``chmod`` is octal or symbolic, as it was written.
    """

    sources: tuple[str, ...]
    target: str
    heredocs: tuple[Heredoc, ...] = ()
    origin: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()


class Add(Instruction, frozen=True):
    """``unpack`` None is Docker's rule: archives of the context are, those from a URL are not."""

    sources: tuple[str, ...]
    target: str
    heredocs: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    excludes: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


class Cmd(Instruction, frozen=True):
    """As of :class:`Run`."""

    command: tuple[str, ...]
    shell_form: bool


class Entrypoint(Instruction, frozen=True):
    """As of :class:`Run`."""

    command: tuple[str, ...]
    shell_form: bool


class Shell(Instruction, frozen=True):
    command: tuple[str, ...]


class Healthcheck(Instruction, frozen=True):
    """``check.test`` is ``("NONE",)``, ``("CMD", ...)`` or ``("CMD-SHELL", text)``."""

    check: image.Healthcheck


class User(Instruction, frozen=True):
    user: str


class Workdir(Instruction, frozen=True):
    path: str


class Expose(Instruction, frozen=True):
    """``80``, ``80/udp``, ``8000-8010/tcp``."""

    ports: tuple[str, ...]


class Volume(Instruction, frozen=True):
    paths: tuple[str, ...]


class StopSignal(Instruction, frozen=True):
    signal: str

    @property
    def word(self) -> str:
        return "STOPSIGNAL"


class Maintainer(Instruction, frozen=True):
    author: str


class Onbuild(Instruction, frozen=True):
    """``trigger`` is the instruction's text, to be read when the image is built upon."""

    trigger: str
