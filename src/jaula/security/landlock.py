"""Landlock for containers: which file hierarchies and TCP ports their processes can reach.

Follows landlock(7); the kernel's side is :mod:`jaula.kernel.landlock`. Decisions only: the result
is a :class:`~jaula.spec.landlock.Ruleset`, which travels in the spec and is entered by the runtime.

What it is for: everything below the container's own root is allowed, read-only mounts stay
read-only by their own flag, and nothing else is reachable. A descriptor of a directory of the host
that leaks into a container, by a fault of the runtime or a hand-over, opens nothing (the class of
CVE-2024-21626). With a read-only root, writing is allowed beneath writable mounts only.

What it costs others, and what therefore switches the default off:

* Who is in such a domain cannot mount. So a container that could (CAP_SYS_ADMIN, or a seccomp
  profile that lets mount through into user namespaces of its own) is left alone.
* A process in a domain can look into, by ptrace or /proc/PID/exe, fd, environ and root, only the
  processes of its own domain. So a container that joins the pid namespace of others, which is
  done to debug them, is left alone.
* For the same reason processes that join later (``exec``) do not enter a domain unless asked: two
  domains of the same rules are strangers, and ``echo x > /proc/1/fd/1``, jcmd or strace from an
  exec'd shell would fail. Without a domain they can look into init's processes, not the reverse.
* Before version 2 renaming and linking between directories is refused, so there it is not default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import structs

from jaula.errors import InvalidRequest
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS
from jaula.kernel.landlock import LANDLOCK_ACCESS_NET as NET
from jaula.kernel.landlock import LANDLOCK_SCOPE as SCOPE
from jaula.kernel.landlock import known
from jaula.security.lsm import detect
from jaula.security.lsm.interface import LabelRequest
from jaula.spec.landlock import ANNOTATION, PathRule, PortRule, Ruleset, decode, encode
from jaula.spec.runtime import Mount, Seccomp, Spec

READ = FS.EXECUTE | FS.READ_FILE | FS.READ_DIR | FS.IOCTL_DEV
DEFAULT_FROM = 2  # the version from which it is on without being asked for
_OFF = ("off", "unconfined")
_MOUNTING = frozenset({"mount", "move_mount", "umount2", "pivot_root"})
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE")
_SCOPES = {"scope-abstract": SCOPE.ABSTRACT_UNIX_SOCKET, "scope-signal": SCOPE.SIGNAL}
_USAGE = (
    "landlock=off, on, exec, tcp-bind=PORT, tcp-connect=PORT (or none), scope-abstract,"
    " scope-signal; several with commas"
)


class Options(NamedTuple):
    """``--security-opt landlock=``, read. ``None`` for ports: any."""

    asked: bool = False
    off: bool = False
    joined: bool = False  # exec'd processes too
    bind: frozenset[int] | None = None
    connect: frozenset[int] | None = None
    scoped: int = 0


def parse(values: Sequence[str]) -> Options:
    """Read the values of the option.

    Rules for ports and scopes hold for exec'd processes too: one that did not obey them would be
    the way around. Raises ``InvalidRequest``.
    """
    found = Options()
    for word in (word for value in values for word in value.split(",")):
        key, equals, port = word.partition("=")
        if word in _OFF:
            found = found._replace(off=True)
            continue
        found = found._replace(asked=True)
        if word == "exec":
            found = found._replace(joined=True)
        elif word in _SCOPES:
            found = found._replace(joined=True, scoped=found.scoped | _SCOPES[word])
        elif key == "tcp-bind" and equals:
            found = found._replace(joined=True, bind=(found.bind or frozenset()) | _ports(port))
        elif key == "tcp-connect" and equals:
            connect = (found.connect or frozenset()) | _ports(port)
            found = found._replace(joined=True, connect=connect)
        elif word != "on":
            raise InvalidRequest(f'invalid --security-opt: "landlock={word}"', hint=_USAGE)
    if found.off and found.asked:
        raise InvalidRequest("--security-opt landlock=off contradicts the others", hint=_USAGE)
    return found


def _ports(text: str) -> frozenset[int]:
    if text == "none":
        return frozenset()
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise InvalidRequest(f"--security-opt landlock: {text!r} is no TCP port", hint=_USAGE)
    return frozenset({int(text)})


def default_off_reason(spec: Spec, *, abi: int) -> str:
    """Why a container is not confined unless that is asked for; empty: it is."""
    if not abi:
        return "the kernel has no Landlock"
    if abi < DEFAULT_FROM:
        return f"version {abi} refuses renames between directories"
    sets = spec.process.capabilities if spec.process else None
    if sets is None or "CAP_SYS_ADMIN" in sets.bounding:
        return "CAP_SYS_ADMIN may mount"
    linux = spec.linux
    if linux is None or _may_mount(linux.seccomp):
        return "its seccomp profile lets mount through"
    if not any(n.type == "pid" and not n.path for n in linux.namespaces):
        return "it shares the pid namespace of others"
    return ""


def _may_mount(seccomp: Seccomp | None) -> bool:
    if seccomp is None or seccomp.default_action in _PERMISSIVE:
        return True
    return any(
        rule.action in _PERMISSIVE and not _MOUNTING.isdisjoint(rule.names)
        for rule in seccomp.syscalls
    )


def decide(mounts: Sequence[Mount], *, root_readonly: bool, options: Options, abi: int) -> Ruleset:
    """The rules for a container. Raises ``InvalidRequest`` for what this version cannot do."""
    can = known(abi)
    if not can.access_fs:
        raise InvalidRequest("--security-opt landlock: this kernel has no Landlock")
    net = 0
    ports: dict[int, int] = {}
    for allowed, right in ((options.bind, NET.BIND_TCP), (options.connect, NET.CONNECT_TCP)):
        if allowed is not None:
            net |= right
            for port in allowed:
                ports[port] = ports.get(port, 0) | right
    if net & ~can.access_net:
        raise InvalidRequest(_too_old("rules for TCP ports", 4, "6.7", abi))
    if options.scoped & ~can.scoped:
        raise InvalidRequest(_too_old("scopes", 6, "6.12", abi))
    return Ruleset(
        handled_access_fs=can.access_fs,
        handled_access_net=int(net),
        scoped=options.scoped,
        paths=_paths(mounts, root_readonly, can.access_fs),
        ports=tuple(PortRule(port, int(ports[port])) for port in sorted(ports)),
        joined=options.joined,
    )


def _too_old(what: str, needed: int, linux: str, abi: int) -> str:
    return (
        f"--security-opt landlock: {what} need version {needed} of Landlock (Linux {linux}),"
        f" this kernel has {abi}"
    )


def _paths(mounts: Sequence[Mount], root_readonly: bool, everything: int) -> tuple[PathRule, ...]:
    if not root_readonly:
        return (PathRule("/", everything),)
    writable = dict.fromkeys(mount.destination for mount in mounts if _writable(mount))
    return (
        PathRule("/", int(READ) & everything),
        *(PathRule(path, everything) for path in writable),
    )


def _writable(mount: Mount) -> bool:
    """Whether anything below may be writable; ``ro`` of a recursive bind is its topmost mount's."""
    readonly = recursive = False
    for option in mount.options:
        if option in ("ro", "rw"):
            readonly = option == "ro"
        elif option in ("rro", "rrw"):
            recursive = option == "rro"
    return not (recursive or (readonly and "rbind" not in mount.options))


def describe(ruleset: Ruleset) -> str:
    """One line for people: ``/ rwx, tcp-bind 80, tcp-connect none, exec too``."""
    words = [f"{rule.path} {_letters(rule.access)}" for rule in ruleset.paths]
    for name, right in (("tcp-bind", NET.BIND_TCP), ("tcp-connect", NET.CONNECT_TCP)):
        if ruleset.handled_access_net & right:
            ports = [str(rule.port) for rule in ruleset.ports if rule.access & right]
            words.append(f"{name} {' '.join(ports) or 'none'}")
    words += [name for name, bit in _SCOPES.items() if ruleset.scoped & bit]
    if ruleset.joined:
        words.append("exec too")
    return ", ".join(words)


def _letters(access: int) -> str:
    return "".join(
        letter
        for letter, right in (("r", FS.READ_FILE), ("w", FS.WRITE_FILE), ("x", FS.EXECUTE))
        if access & right
    )


class Landlock:
    """A :class:`~jaula.security.lsm.interface.MandatoryAccess`.

    ``abi`` is the version that the kernel has, 0 for none.
    """

    name = "landlock"
    option = "landlock"

    def __init__(self, abi: int) -> None:
        self.abi = abi

    @classmethod
    def from_host(cls) -> Landlock:
        return cls(detect.landlock())

    def enabled(self) -> bool:
        return self.abi > 0

    def shown(self) -> str:
        return f"name=landlock,abi={self.abi}"

    def confine(self, spec: Spec, request: LabelRequest) -> Spec:
        """A container gets rules where it asks for some, or where nothing speaks against it."""
        options = parse(request.options)
        if options.off:
            return spec
        if not options.asked and (request.privileged or default_off_reason(spec, abi=self.abi)):
            return spec
        readonly = spec.root is not None and spec.root.readonly
        rules = decide(spec.mounts, root_readonly=readonly, options=options, abi=self.abi)
        return structs.replace(spec, annotations={**spec.annotations, ANNOTATION: encode(rules)})

    def requested(self, spec: Spec) -> str:
        text = spec.annotations.get(ANNOTATION)
        return describe(decode(text)) if text is not None else ""

    def in_effect(self, pid: int) -> str | None:
        """The kernel tells nobody; the runtime holds each process to it before its program runs."""
        return None
