"""Decide the SELinux labels of a container's processes and files.

Follows selinux(8), Docker's ``--security-opt label=`` and the ``lxc_contexts`` file of a policy
(libselinux, ``selinux_lxc_contexts_path``), which names the types of containers.

The type separates containers from the host: the policy lets ``container_t`` access little more than
``container_file_t``. The level separates containers from each other: it is a pair of categories
that no other container has (:mod:`jaula.security.lsm.selinux_mcs`), on processes and files.

Facts about labels: a label is written to attr/exec and takes effect at the next execve. The kernel
refuses that if the policy does not allow the transition. A mount with ``context=`` shows all files
with that label, regardless of the label on disk. So containers with different labels can share
layers.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import structs

from jaula.errors import InvalidRequest, Unsupported
from jaula.security.lsm.interface import LabelRequest
from jaula.spec.runtime_spec import Linux, Process, Spec

DISABLE = "disable"
SHARED_LEVEL = "s0"  # without categories: every container may use it (``z``)
_FIELDS = ("user", "role", "type", "level")
_USAGE = "label=disable, or user:, role:, type:, level: with a value"
_LIMIT = 256  # bytes; the kernel's is a page


class Context(NamedTuple):
    """A security context, ``user:role:type:level``. The level may have colons."""

    user: str
    role: str
    type: str
    level: str

    def __str__(self) -> str:
        return ":".join(self)


def parse_context(text: str) -> Context:
    """Parse a security context.

    :raises InvalidRequest: when ``text`` is not one, or has no level.
    """
    parts = text.split(":", 3)
    if len(parts) != 4 or not all(parts) or len(text) > _LIMIT or not _plain(text):
        raise InvalidRequest(f"{text!r} is not an SELinux context of the form user:role:type:level")
    return Context(*parts)


def _plain(text: str) -> bool:
    """Return whether no character is special in a mount option or a kernel file."""
    return text.isascii() and all(c.isalnum() or c in "_.-:," for c in text)


class Types(NamedTuple):
    """The contexts of containers: of processes, of files, and of privileged processes."""

    process: Context = Context("system_u", "system_r", "container_t", "s0")
    file: Context = Context("system_u", "object_r", "container_file_t", "s0")
    privileged: Context = Context("system_u", "system_r", "spc_t", "s0")


DEFAULT_TYPES = Types()


def read_types(text: str, *, process: str = "", file: str = "") -> Types:
    """Parse a policy's ``lxc_contexts``, and override types with those of the operator.

    ``text`` is the content of the file, '' if it does not exist.

    :raises InvalidRequest: when a context or type is not valid.
    """
    types = Types()
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip().strip('"')
        if equals and key in ("process", "file") and not key.startswith("#"):
            types = types._replace(**{key: parse_context(value)})
    if process:
        types = types._replace(process=types.process._replace(type=_name("type", process)))
    if file:
        types = types._replace(file=types.file._replace(type=_name("type", file)))
    return types


class Options(NamedTuple):
    """The parsed ``--security-opt label=``. Absent fields are None."""

    disable: bool = False
    user: str | None = None
    role: str | None = None
    type: str | None = None
    level: str | None = None


def parse(values: tuple[str, ...]) -> Options:
    """Parse the values. A later value wins, and ``disable`` overrides all.

    :raises InvalidRequest: when a value is not valid.
    """
    options = Options()
    for value in values:
        if value == DISABLE:
            options = options._replace(disable=True)
            continue
        key, colon, rest = value.partition(":")
        if not colon or key not in _FIELDS:
            raise InvalidRequest(f"invalid --security-opt label={value}", hint=_USAGE)
        overridden = {field: getattr(options, field) for field in _FIELDS} | {key: _name(key, rest)}
        options = Options(options.disable, **overridden)
    return options


def _name(key: str, text: str) -> str:
    inner = text.replace(":", "").replace(",", "") if key == "level" else text
    if not inner or not _plain(inner) or len(text) > _LIMIT or ":" in inner or "," in inner:
        raise InvalidRequest(f"invalid --security-opt label={key}:{text}", hint=_USAGE)
    return text


class Labels(NamedTuple):
    """The labels of a container. Without a label processes run with the engine's label."""

    process: str = ""
    mount: str = ""


def decide(
    options: Options, types: Types, level: str, *, unconfined: bool, spc: bool = True
) -> Labels:
    """Return the labels of a container.

    ``level`` is the level that the engine allocated. ``unconfined`` containers (``--privileged``,
    or in the host's pid or ipc namespace) and those with ``label=disable`` get the policy's type
    for privileged containers if it has one (``spc``). Their files keep their own label, so that
    other containers cannot read them.
    """
    if options.level is not None:
        level = options.level
    mount = str(types.file._replace(level=level or SHARED_LEVEL))
    overridden = options.user or options.role or options.type or options.level
    if options.disable or (unconfined and not overridden):
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
    """Return whether a container is not labelled, as in Docker, because a label would break it.

    These are containers with ``--privileged`` or with the host's pid or ipc namespace.
    """
    own = {n.type for n in spec.linux.namespaces} if spec.linux else set()
    return request.privileged or not {"pid", "ipc"} <= own


class SELinux:
    """A :class:`~jaula.security.lsm.interface.MandatoryAccess` for one container.

    ``active`` says whether a policy is loaded. ``level`` is the level of the container. ``spc``
    says whether the policy has the type for privileged containers.
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

    def security_option(self) -> str:
        return "name=selinux"

    def confine(self, spec: Spec, request: LabelRequest) -> Spec:
        """Set the labels of process and mounts. Return the spec unchanged without a policy."""
        options = parse(request.options)
        if not self.active:
            return spec
        is_unconfined = unconfined(spec, request)
        labels = decide(options, self.types, self.level, unconfined=is_unconfined, spc=self.spc)
        return with_labels(spec, labels)

    def requested(self, spec: Spec) -> str:
        return (spec.process.selinux_label if spec.process else None) or ""

    def in_effect(self, pid: int) -> str | None:
        with open(f"/proc/{pid}/attr/current", encoding="ascii", errors="replace") as file:
            return file.read().rstrip("\0\n")


def with_labels(spec: Spec, labels: Labels) -> Spec:
    """Return the spec with these labels."""
    return structs.replace(
        spec,
        process=structs.replace(
            spec.process or Process(cwd="/"), selinux_label=labels.process or None
        ),
        linux=structs.replace(spec.linux or Linux(), mount_label=labels.mount or None),
    )


def unknown_context_error(what: str, label: str) -> Unsupported:
    """Return the error for a context that the loaded policy does not have."""
    return Unsupported(
        f"the SELinux policy of this host does not have the {what} context {label}",
        hint="set other types for the daemon (--selinux-type, --selinux-file-type), or use"
        " --security-opt label=type:NAME or label=disable",
    )
