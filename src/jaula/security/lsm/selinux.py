"""SELinux for containers: which label a container's processes and its files get. Decisions only.

Follows selinux(8), Docker's ``--security-opt label=`` and the ``lxc_contexts`` file of a policy
(libselinux, ``selinux_lxc_contexts_path``), which names the types that containers run with.

Two things separate containers from the host and from each other. The type: what the policy lets a
``container_t`` touch is little more than ``container_file_t``. And the level: a pair of categories
that no other container has (:mod:`jaula.security.lsm.selinux_mcs`), on its processes and on its files.

Facts about labels: the label is written to attr/exec and takes effect at the next execve, which the
kernel refuses where the policy does not allow the transition. A mount made with ``context=`` shows
every file with that label, whatever is stored on disk; layers shared by containers with different
labels need nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import structs

from jaula.errors import InvalidRequest, Unsupported
from jaula.security.lsm.interface import LabelRequest
from jaula.spec.runtime import Linux, Process, Spec

DISABLE = "disable"
SHARED_LEVEL = "s0"  # without categories: every container may use it (``z``)
_FIELDS = ("user", "role", "type", "level")
_USAGE = "label=disable, or user:, role:, type:, level: with a value"
_LIMIT = 256  # bytes; the kernel's is a page


class Context(NamedTuple):
    """A security context, ``user:role:type:level``; the level itself may hold colons."""

    user: str
    role: str
    type: str
    level: str

    def __str__(self) -> str:
        return ":".join(self)


def parse_context(text: str) -> Context:
    """Raises ``InvalidRequest`` for what is none, or has no level."""
    parts = text.split(":", 3)
    if len(parts) != 4 or not all(parts) or len(text) > _LIMIT or not _plain(text):
        raise InvalidRequest(f"{text!r} is no SELinux context of the form user:role:type:level")
    return Context(*parts)


def _plain(text: str) -> bool:
    """Whether there is nothing that a mount option or a kernel file would read in another way."""
    return text.isascii() and all(c.isalnum() or c in "_.-:," for c in text)


class Types(NamedTuple):
    """The contexts that containers get: their processes, their files, and what is privileged."""

    process: Context = Context("system_u", "system_r", "container_t", "s0")
    file: Context = Context("system_u", "object_r", "container_file_t", "s0")
    privileged: Context = Context("system_u", "system_r", "spc_t", "s0")


DEFAULT_TYPES = Types()


def read_types(text: str, *, process: str = "", file: str = "") -> Types:
    """The contexts that a policy's ``lxc_contexts`` names, with types that an operator prefers.

    ``text`` is the file's, empty where there is none. Raises ``InvalidRequest``.
    """
    found = Types()
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip().strip('"')
        if equals and key in ("process", "file") and not key.startswith("#"):
            found = found._replace(**{key: parse_context(value)})
    if process:
        found = found._replace(process=found.process._replace(type=_name("type", process)))
    if file:
        found = found._replace(file=found.file._replace(type=_name("type", file)))
    return found


class Options(NamedTuple):
    """``--security-opt label=``, read; what was not named is None."""

    disable: bool = False
    user: str | None = None
    role: str | None = None
    type: str | None = None
    level: str | None = None


def parse(values: tuple[str, ...]) -> Options:
    """Read the values; a later one wins, and ``disable`` wins over all.

    Raises ``InvalidRequest``.
    """
    options = Options()
    for value in values:
        if value == DISABLE:
            options = options._replace(disable=True)
            continue
        key, colon, rest = value.partition(":")
        if not colon or key not in _FIELDS:
            raise InvalidRequest(f"invalid --security-opt label={value}", hint=_USAGE)
        named = {field: getattr(options, field) for field in _FIELDS} | {key: _name(key, rest)}
        options = Options(options.disable, **named)
    return options


def _name(key: str, text: str) -> str:
    inner = text.replace(":", "").replace(",", "") if key == "level" else text
    if not inner or not _plain(inner) or len(text) > _LIMIT or ":" in inner or "," in inner:
        raise InvalidRequest(f"invalid --security-opt label={key}:{text}", hint=_USAGE)
    return text


class Labels(NamedTuple):
    """What a container gets; empty: none, the processes then run with the engine's own label."""

    process: str = ""
    mount: str = ""


def decide(
    options: Options, types: Types, level: str, *, unconfined: bool, spc: bool = True
) -> Labels:
    """The labels of one container.

    ``level`` is what the engine allocated. ``unconfined`` containers (``--privileged``, those in
    the host's pid or ipc namespace) and those with ``label=disable`` get the policy's type for
    privileged containers where it has one (``spc``); their files keep a label that is theirs, so
    that other containers cannot read them.
    """
    if options.level is not None:
        level = options.level
    mount = str(types.file._replace(level=level or SHARED_LEVEL))
    named = options.user or options.role or options.type or options.level
    if options.disable or (unconfined and not named):
        return Labels(str(types.privileged) if spc else "", mount)
    base = types.process
    process = Context(
        options.user or base.user,
        options.role or base.role,
        options.type or base.type,
        level or base.level,
    )
    return Labels(str(process), mount)


def unconfined(spec: Spec, request: LabelRequest) -> bool:
    """Whether a container sees so much of the host that a label would only break it, as in Docker.

    That is ``--privileged``, and the host's pid or ipc namespace.
    """
    own = {n.type for n in spec.linux.namespaces} if spec.linux else set()
    return request.privileged or not {"pid", "ipc"} <= own


class SELinux:
    """A :class:`~jaula.security.lsm.interface.MandatoryAccess`, of a host whose policy is loaded or not.

    ``level`` is the container's own, ``spc`` whether the policy knows the privileged type.
    """

    name = "selinux"
    option = "label"

    def __init__(
        self, *, active: bool, types: Types = DEFAULT_TYPES, level: str = "", spc: bool = True
    ) -> None:
        self.active = active
        self.types = types
        self.level = level
        self.spc = spc

    def enabled(self) -> bool:
        return self.active

    def shown(self) -> str:
        return "name=selinux"

    def confine(self, spec: Spec, request: LabelRequest) -> Spec:
        """The labels of the process and of the mounts; nothing where there is no policy."""
        options = parse(request.options)
        if not self.active:
            return spec
        bare = unconfined(spec, request)
        labels = decide(options, self.types, self.level, unconfined=bare, spc=self.spc)
        return with_labels(spec, labels)

    def requested(self, spec: Spec) -> str:
        return (spec.process.selinux_label if spec.process else None) or ""

    def in_effect(self, pid: int) -> str | None:
        with open(f"/proc/{pid}/attr/current", encoding="ascii", errors="replace") as file:
            return file.read().rstrip("\0\n")


def with_labels(spec: Spec, labels: Labels) -> Spec:
    """The spec with these labels."""
    return structs.replace(
        spec,
        process=structs.replace(
            spec.process or Process(cwd="/"), selinux_label=labels.process or None
        ),
        linux=structs.replace(spec.linux or Linux(), mount_label=labels.mount or None),
    )


def unknown_context_error(what: str, label: str) -> Unsupported:
    """The error for a context that the loaded policy does not know."""
    return Unsupported(
        f"the SELinux policy of this host does not know the {what} context {label}",
        hint="the daemon takes other types (--selinux-type, --selinux-file-type); or choose"
        " one with --security-opt label=type:NAME or label=disable",
    )
