"""Landlock for containers: the file hierarchies and TCP ports that their processes can access.

Follows landlock(7). The system calls are in :mod:`jaula.kernel.landlock`. This module decides only:
the result is a :class:`~jaula.spec.annotations.Ruleset` in the spec, which the runtime enforces.

Purpose: all files below the container's root are allowed, and no others. Read-only mounts stay
read-only by their own flag. A descriptor of a host directory that leaks into a container, by a bug
of the runtime or of a helper, gives no access (the class of CVE-2024-21626). With a read-only root,
writes are allowed below writable mounts only.

Facts about message queues: mq_open(2) opens the queue in a mount of the ipc namespace that the
kernel keeps to itself, outside of every path. A rule for /dev/mqueue, another mount of the same
file system, includes it; the rule for the root does not.

The default is off where a Landlock domain would break a container:

* A process in a domain cannot mount. So the default is off for a container that may mount
  (CAP_SYS_ADMIN, or a seccomp profile that allows mount in its own user namespaces).
* A process in a domain can access only processes of its own domain by ptrace or /proc/PID/exe, fd,
  environ and root. So the default is off for a container that joins another pid namespace, which
  is done for debugging.
* For the same reason processes that join later (``exec``) do not enter a domain by default. Two
  domains with the same rules cannot access each other, so ``echo x > /proc/1/fd/1``, jcmd or strace
  in an exec shell would fail. Without a domain they can access init's processes, not the reverse.
* Before version 2 Landlock refuses renames and links between directories, so the default is off.

Lists of paths (``read=PATH``, ``write=PATH``, ``execute=PATH``) replace the rule for the root. A
list restricts its own kind of access only; without one, that access stays as above. Executing
includes reading, since an interpreter reads its script; writing includes reading, but not
executing. /proc, /sys, the devices below /dev, and the files of the engine in /etc stay accessible.

Facts about execution: the kernel checks EXECUTE of the program and of its ELF interpreter, not of
libraries, which the interpreter only reads (landlock(7)). So a list of programs needs the loader.

Facts about files that do not exist at the start: a rule marks an inode, so the rights go to the
directory. A program that replaces a file by rename needs a rule for the directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import structs

from jaula.errors import InvalidRequest
from jaula.kernel.landlock import LANDLOCK_ACCESS_FS as FS
from jaula.kernel.landlock import LANDLOCK_ACCESS_NET as NET
from jaula.kernel.landlock import LANDLOCK_SCOPE as SCOPE
from jaula.kernel.landlock import supported_rights
from jaula.security.lsm import detect
from jaula.security.lsm.interface import LabelRequest
from jaula.spec.annotations import (
    LANDLOCK_ANNOTATION,
    PathRule,
    PortRule,
    Ruleset,
    decode_ruleset,
    encode_ruleset,
)
from jaula.spec.runtime_spec import Mount, Seccomp, Spec

READ = FS.EXECUTE | FS.READ_FILE | FS.READ_DIR | FS.IOCTL_DEV
QUEUES = "/dev/mqueue"
DEFAULT_FROM = 2  # the first version with which it is on by default
TCP_FROM = 4  # the first version with rules for TCP ports
_OFF = ("off", "unconfined")
_MOUNTING = frozenset({"mount", "move_mount", "umount2", "pivot_root"})
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE")
_SCOPES = {"scope-abstract": SCOPE.ABSTRACT_UNIX_SOCKET, "scope-signal": SCOPE.SIGNAL}
_USAGE = (
    "landlock=off, on, exec, tcp-bind=PORT, tcp-connect=PORT (or none), scope-abstract,"
    " scope-signal; several with commas; or one of read=PATH, write=PATH, execute=PATH"
)
_PORTS = ("tcp-bind", "tcp-connect")
_KINDS = ("read", "write", "execute")
MAX_PATHS = 4096  # of one container
_SHOWN = 8  # paths in a description
_READ = FS.READ_FILE | FS.READ_DIR | FS.IOCTL_DEV
_WRITE = (
    FS.WRITE_FILE
    | FS.TRUNCATE
    | FS.REMOVE_DIR
    | FS.REMOVE_FILE
    | FS.MAKE_CHAR
    | FS.MAKE_DIR
    | FS.MAKE_REG
    | FS.MAKE_SOCK
    | FS.MAKE_FIFO
    | FS.MAKE_BLOCK
    | FS.MAKE_SYM
    | FS.REFER
)
# What the C library, terminals and the resolver of names need.
_BASICS = (
    ("/proc", _READ | _WRITE),
    ("/sys", _READ),
    ("/dev", _READ | FS.WRITE_FILE | FS.TRUNCATE),
    (QUEUES, _READ | _WRITE),
    ("/etc/hosts", _READ),
    ("/etc/hostname", _READ),
    ("/etc/resolv.conf", _READ),
)
_INIT = "/sbin/docker-init"  # of --init


class Options(NamedTuple):
    """The parsed ``--security-opt landlock=``. ``None`` for ports means any port."""

    asked: bool = False
    off: bool = False
    joined: bool = False  # exec processes enter the domain too
    bind: frozenset[int] | None = None
    connect: frozenset[int] | None = None
    scoped: int = 0
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    execute: tuple[str, ...] = ()


def parse(values: Sequence[str]) -> Options:
    """Parse the values of the option.

    Rules for paths, ports and scopes apply to exec processes too, because those could bypass them.

    :raises InvalidRequest: when a value is not valid.
    """
    asked = off = joined = False
    scoped = 0
    ports: dict[str, set[int]] = {}
    paths: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for item in (item for value in values for item in _items(value)):
        key, equals, text = item.partition("=")
        if item in _OFF:
            off = True
            continue
        asked = True
        joined = joined or item != "on"
        if key in _KINDS and equals:
            paths[key].append(_path(text))
        elif item in _SCOPES:
            scoped |= _SCOPES[item]
        elif key in _PORTS and equals:
            ports.setdefault(key, set()).update(_ports(text))
        elif item not in ("on", "exec"):
            raise InvalidRequest(f'invalid --security-opt: "landlock={item}"', hint=_USAGE)
    if sum(map(len, paths.values())) > MAX_PATHS:
        raise InvalidRequest(f"--security-opt landlock: more than {MAX_PATHS} paths")
    if off and asked:
        raise InvalidRequest(
            "--security-opt landlock=off cannot be combined with other values", hint=_USAGE
        )
    bind, connect = (frozenset(ports[key]) if key in ports else None for key in _PORTS)
    return Options(
        asked,
        off,
        joined,
        bind,
        connect,
        scoped,
        read=tuple(paths["read"]),
        write=tuple(paths["write"]),
        execute=tuple(paths["execute"]),
    )


def _items(value: str) -> list[str]:
    """Return the parts of a value; a path may have commas."""
    return [value] if value.partition("=")[0] in _KINDS else value.split(",")


def _path(text: str) -> str:
    """Return an absolute, normalised path; a final slash stays.

    :raises InvalidRequest: when it is not.
    """
    parts = text.removesuffix("/").split("/")
    if text != "/" and (parts[0] or not parts[1:] or {"", ".", ".."} & set(parts[1:])):
        raise InvalidRequest(
            f"--security-opt landlock: {text[:80]!r} is not a normalised absolute path",
            hint="read=/etc/ssl/certs/ or execute=/usr/bin/env",
        )
    if "\0" in text or len(text) > 4096:
        raise InvalidRequest("--security-opt landlock: a path is too long or has a NUL byte")
    return text


def _ports(text: str) -> frozenset[int]:
    if text == "none":
        return frozenset()
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise InvalidRequest(f"--security-opt landlock: {text!r} is not a TCP port", hint=_USAGE)
    return frozenset({int(text)})


def default_off_reason(spec: Spec, *, abi: int) -> str:
    """Return the reason why Landlock is off by default for a container, '' if it is on."""
    if not abi:
        return "the kernel has no Landlock"
    if abi < DEFAULT_FROM:
        return f"version {abi} refuses renames between directories"
    sets = spec.process.capabilities if spec.process else None
    if sets is None or "CAP_SYS_ADMIN" in sets.bounding:
        return "CAP_SYS_ADMIN may mount"
    linux = spec.linux
    if linux is None or _may_mount(linux.seccomp):
        return "its seccomp profile allows mount"
    if not any(n.type == "pid" and not n.path for n in linux.namespaces):
        return "it shares another pid namespace"
    return ""


def _may_mount(seccomp: Seccomp | None) -> bool:
    if seccomp is None or seccomp.default_action in _PERMISSIVE:
        return True
    return any(
        rule.action in _PERMISSIVE and not _MOUNTING.isdisjoint(rule.names)
        for rule in seccomp.syscalls
    )


def decide(mounts: Sequence[Mount], *, root_readonly: bool, options: Options, abi: int) -> Ruleset:
    """Return the rules of a container.

    :raises InvalidRequest: when this version of Landlock does not support an option.
    """
    supported = supported_rights(abi)
    if not supported.access_fs:
        raise InvalidRequest("--security-opt landlock: this kernel has no Landlock")
    net = 0
    ports: dict[int, int] = {}
    for allowed, access in ((options.bind, NET.BIND_TCP), (options.connect, NET.CONNECT_TCP)):
        if allowed is not None:
            net |= access
            for port in allowed:
                ports[port] = ports.get(port, 0) | access
    if net & ~supported.access_net:
        raise InvalidRequest(_too_old("rules for TCP ports", TCP_FROM, "6.7", abi))
    if options.scoped & ~supported.scoped:
        raise InvalidRequest(_too_old("scopes", 6, "6.12", abi))
    return Ruleset(
        handled_access_fs=supported.access_fs,
        handled_access_net=int(net),
        scoped=options.scoped,
        paths=_path_rules(mounts, root_readonly, options, supported.access_fs),
        ports=tuple(PortRule(port, int(ports[port])) for port in sorted(ports)),
        joined=options.joined,
    )


def _too_old(what: str, needed: int, linux: str, abi: int) -> str:
    return (
        f"--security-opt landlock: {what} need version {needed} of Landlock (Linux {linux}),"
        f" this kernel has {abi}"
    )


def _path_rules(
    mounts: Sequence[Mount], root_readonly: bool, options: Options, all_access: int
) -> tuple[PathRule, ...]:
    """Return the rules for paths: the defaults, with the lists of the options in their place."""
    if not (options.read or options.write or options.execute):
        return _paths(mounts, root_readonly, all_access)
    rules: dict[str, tuple[int, int]] = {}

    def add(path: str, access: int, create: int = 0) -> None:
        before = rules.get(path, (0, 0))
        rules[path] = (before[0] | access & all_access, before[1] | create & all_access)

    add("/", (0 if options.read else _READ) | (0 if options.execute else FS.EXECUTE))
    if not options.write:
        if not root_readonly:
            add("/", _WRITE)
        for mount in mounts:
            if _writable(mount):
                add(mount.destination, _READ | _WRITE)
    for path, access in _BASICS:
        add(path, access)
    for path in options.read:
        add(path, _READ)
    for path in options.execute:
        add(path, _READ | FS.EXECUTE)
    for path in options.write:
        add(path, _READ | _WRITE, _READ | _WRITE)
    if any(mount.destination == _INIT for mount in mounts):
        add(_INIT, _READ | FS.EXECUTE)
    return tuple(
        PathRule(path, access, create) for path, (access, create) in rules.items() if access
    )


def _paths(mounts: Sequence[Mount], root_readonly: bool, all_access: int) -> tuple[PathRule, ...]:
    if not root_readonly:
        queues = (mount.destination for mount in mounts if mount.destination == QUEUES)
        return (PathRule("/", all_access), *(PathRule(path, all_access) for path in queues))
    writable = dict.fromkeys(mount.destination for mount in mounts if _writable(mount))
    return (
        PathRule("/", int(READ) & all_access),
        *(PathRule(path, all_access) for path in writable),
    )


def _writable(mount: Mount) -> bool:
    """Return whether a mount may have writable files.

    ``ro`` of a recursive bind mount applies to its topmost mount only.
    """
    readonly = recursive = False
    for option in mount.options:
        if option in ("ro", "rw"):
            readonly = option == "ro"
        elif option in ("rro", "rrw"):
            recursive = option == "rro"
    return not (recursive or (readonly and "rbind" not in mount.options))


def describe(ruleset: Ruleset) -> str:
    """Format a ruleset for display: ``/ rwx, tcp-bind 80, tcp-connect none, exec too``."""
    parts = [f"{rule.path} {_letters(rule.access)}" for rule in ruleset.paths[:_SHOWN]]
    if len(ruleset.paths) > _SHOWN:
        parts.append(f"and {len(ruleset.paths) - _SHOWN} more paths")
    for name, access in (("tcp-bind", NET.BIND_TCP), ("tcp-connect", NET.CONNECT_TCP)):
        if ruleset.handled_access_net & access:
            ports = [str(rule.port) for rule in ruleset.ports if rule.access & access]
            parts.append(f"{name} {' '.join(ports) or 'none'}")
    parts += [name for name, bit in _SCOPES.items() if ruleset.scoped & bit]
    if ruleset.joined:
        parts.append("exec too")
    return ", ".join(parts)


def _letters(access: int) -> str:
    return "".join(
        letter
        for letter, right in (("r", FS.READ_FILE), ("w", FS.WRITE_FILE), ("x", FS.EXECUTE))
        if access & right
    )


class Landlock:
    """A :class:`~jaula.security.lsm.interface.MandatoryAccess`.

    ``abi`` is the version of the kernel's interface, 0 if it has no Landlock.
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

    def security_option(self) -> str:
        return f"name=landlock,abi={self.abi}"

    def confine(self, spec: Spec, request: LabelRequest) -> Spec:
        """Add rules to the spec if they are requested, or if Landlock is on by default."""
        options = parse(request.options)
        if options.off:
            return spec
        if not options.asked and (request.privileged or default_off_reason(spec, abi=self.abi)):
            return spec
        readonly = spec.root is not None and spec.root.readonly
        rules = decide(spec.mounts, root_readonly=readonly, options=options, abi=self.abi)
        return structs.replace(
            spec, annotations={**spec.annotations, LANDLOCK_ANNOTATION: encode_ruleset(rules)}
        )

    def requested(self, spec: Spec) -> str:
        text = spec.annotations.get(LANDLOCK_ANNOTATION)
        return describe(decode_ruleset(text)) if text is not None else ""

    def in_effect(self, pid: int) -> str | None:
        """Return None: the kernel does not expose domains. The runtime ensures the domain."""
        return None
