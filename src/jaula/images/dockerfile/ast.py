"""The syntax tree of a Dockerfile: instructions, stages, directives and warnings.

Source: the Dockerfile reference. ``location`` is the line range of an instruction.
``source`` is its canonical text: two instructions with the same text mean the same, whatever their
spacing, comments and line breaks; here-documents follow it line by line.

The fields contain variables as written until :func:`~.expand.expand` replaces them. That also
removes quotes and escapes.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from jaula.images.dockerfile.dockerfile_error import DockerfileError
from jaula.images.dockerfile.dockerfile_words import Flags
from jaula.spec import image_documents

Pairs = tuple[tuple[str, str], ...]


class Location(msgspec.Struct, frozen=True):
    """A range of lines, counted from 1; both ends are included."""

    first: int
    last: int


class Heredoc(msgspec.Struct, frozen=True):
    """A here-document. ``content`` ends with a line break unless it is empty.

    ``expand`` is true if variables in it are replaced (its delimiter is not quoted). The leading
    tabs that ``<<-`` strips are already removed.
    """

    name: str
    content: str
    expand: bool


class Instruction(msgspec.Struct, frozen=True):
    """The fields of all instructions."""

    location: Location
    source: str

    @property
    def word(self) -> str:
        """Return the name of the instruction: ``RUN``."""
        return type(self).__name__.upper()

    @property
    def headline(self) -> str:
        """Return the canonical text without here-documents."""
        return self.source.partition("\n")[0]


class From(Instruction, frozen=True):
    """``name`` is in lower case, '' for an unnamed stage; ``platform`` is '' if not stated."""

    base: str
    platform: str = ""
    name: str = ""


class Arg(Instruction, frozen=True):
    """Names and defaults; a default is None if absent."""

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
    """How builds share a cache: concurrently, one copy each, or one at a time."""

    SHARED = "shared"
    PRIVATE = "private"
    LOCKED = "locked"


class RunMount(msgspec.Struct, frozen=True, kw_only=True):
    """One ``RUN --mount``.

    ``target`` is '' for a secret or socket at its default path. ``origin`` is ``from``: the name or
    number of a stage, the name of a context or an image, '' for the build context. ``id`` has its
    default applied. ``mode`` None is the default of the kind. ``size`` is in bytes, 0 for no limit.
    ``env`` is the variable for a secret's content, '' for a file.
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
    """``command`` is one text for the shell if ``shell_form``, else the arguments of a program.

    Here-documents are part of that text, as the shell reads them. If the command is only a
    here-document that starts with ``#!``, ``script`` contains it and ``command`` is empty. It is
    executed as a file named after its delimiter. ``flags`` are those of the line, unchanged.
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
    """``heredocs`` are additional sources: files with that name and content.

    ``origin`` is ``--from``: the name or number of a stage, the name of a context or an image, ''
    for the build context. ``chmod`` is octal or symbolic, unchanged.
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
    """``unpack`` None is Docker's default.

    By default archives of the context are unpacked and downloaded ones are not.
    """

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
    """``command`` and ``shell_form`` as in :class:`Run`."""

    command: tuple[str, ...]
    shell_form: bool


class Entrypoint(Instruction, frozen=True):
    """``command`` and ``shell_form`` as in :class:`Run`."""

    command: tuple[str, ...]
    shell_form: bool


class Shell(Instruction, frozen=True):
    command: tuple[str, ...]


class Healthcheck(Instruction, frozen=True):
    """``check.test`` is ``("NONE",)``, ``("CMD", ...)`` or ``("CMD-SHELL", text)``."""

    check: image_documents.Healthcheck


class User(Instruction, frozen=True):
    user: str


class Workdir(Instruction, frozen=True):
    path: str


class Expose(Instruction, frozen=True):
    """Ports such as ``80``, ``80/udp`` or ``8000-8010/tcp``."""

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
    """``trigger`` is the text of the instruction, parsed when the image is used as a base."""

    trigger: str


class LintWarning(msgspec.Struct, frozen=True):
    """A valid construct that is probably a mistake. ``rule`` is BuildKit's name of the check."""

    rule: str
    message: str
    location: Location

    @property
    def url(self) -> str:
        """Return the address of Docker's description of the check."""
        return rule_url(self.rule)


def rule_url(rule: str) -> str:
    """Return the address of Docker's description of a check. Pure."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", rule).lower()
    return f"https://docs.docker.com/go/dockerfile/rule/{words}/"


class Directives(msgspec.Struct, frozen=True):
    """Parser directives (``# name=value``) at the top. ``escape`` is a backslash or a backtick."""

    escape: str = "\\"
    syntax: str = ""
    check: str = ""


class Stage(msgspec.Struct, frozen=True):
    """The instructions from one FROM to the next.

    ``index`` counts from 0; ``name`` is in lower case, '' for an unnamed stage.
    """

    index: int
    name: str
    base: From
    instructions: tuple[Instruction, ...]


class Dockerfile(msgspec.Struct, frozen=True):
    """``arguments`` are the ARGs before the first FROM; ``lines`` is the unchanged text."""

    name: str
    directives: Directives
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    lines: tuple[str, ...]
    warnings: tuple[LintWarning, ...] = ()

    def at(self, error: DockerfileError, location: Location) -> DockerfileError:
        """Return the error with its location and the text of its lines."""
        return error.at(self.name, location.first, self.lines[location.first - 1 : location.last])


class InstructionLine(msgspec.Struct, frozen=True):
    """The parts of an instruction's line, before its arguments are parsed.

    ``word`` is the name in upper case; ``rest`` is the text after the flags, stripped.
    ``documents`` is the text of the ``heredocs`` as a shell reads it, with the closing delimiters.
    """

    location: Location
    word: str
    flags: Flags
    rest: str
    heredocs: tuple[Heredoc, ...]
    documents: str
    escape: str
