"""Section 1: the host. Its partition, the users of the engine, audit rules, hardening.

Evidence: the mount table, the socket's owner and mode, the groups of the host, the rules that the
kernel's audit subsystem has loaded, sysctls and the kernel's version.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections.abc import Mapping

import msgspec

from jaula import __version__
from jaula.features.audit.benchmark import file_status
from jaula.features.audit.benchmark.control import (
    AuditRuleFix,
    Control,
    Judge,
    Judgement,
    Kind,
    Scope,
    fails,
    manual,
    not_applicable,
    passes,
    unknown,
)
from jaula.features.audit.benchmark.file_status import FileStatus
from jaula.features.verify.host import kernel_version, sysctls
from jaula.features.verify.host.host import Host
from jaula.features.verify.model.result import Result, Verdict
from jaula.kernel import kernel_audit
from jaula.kernel.kernel_audit import AUDIT_PERM_ATTR, AUDIT_PERM_WRITE, AuditRule
from jaula.kernel.mountinfo import MountInfo

AUDIT_KEY = "jaula"
"""The key of the rules in the engine's own file."""


class Layout(msgspec.Struct, frozen=True):
    """Paths of an engine: its directories, sockets, settings and programs; '' if it has none."""

    root: str
    run: str
    socket: str
    cri_socket: str
    config_directory: str = "/etc/jaula"
    config_file: str = "/etc/jaula/daemon.json"
    policy: str = "/etc/jaula/policy.toml"
    service_unit: str = ""
    socket_unit: str = ""
    environment_file: str = "/etc/default/jaula"
    sysconfig_file: str = "/etc/sysconfig/jaula"
    package: str = ""
    interpreter: str = ""
    command: str = ""
    own_runtime: str = ""
    other_runtime: str = ""


class HostState(msgspec.Struct, frozen=True):
    """The host as its controls need it.

    ``data_mount`` is the mount that the data directory is on; an engine may bind its directory
    at itself, so the device counts. ``rules`` is None if they cannot be
    read, with the reason in ``rules_error``. ``absent`` are paths to record that do not exist.
    ``socket_users`` are the members of the socket's group, without root.
    """

    layout: Layout
    data_mount: MountInfo | None = None
    socket: FileStatus | None = None
    socket_users: tuple[str, ...] = ()
    rules: tuple[AuditRule, ...] | None = ()
    rules_error: str = ""
    rules_supported: bool = True
    recording: bool = True
    absent: frozenset[str] = frozenset()
    cves: str = ""  # of this kernel
    weak_sysctls: tuple[str, ...] = ()
    version: str = __version__
    root_device: str = ""  # of the mount at /
    directories: frozenset[str] = frozenset()  # of the recorded paths
    run_status: FileStatus | None = None  # of the runtime directory
    rows: tuple[Result, ...] = ()  # of jaula verify --host, for the profile jaula


def read(host: Host, layout: Layout, rows: tuple[Result, ...] = ()) -> HostState:
    """Read the state of the host; ``rows`` are those of ``jaula verify --host``.

    :raises OSError: when a file of it cannot be read.
    """
    supported, error = True, ""
    rules: tuple[AuditRule, ...] | None = None
    recording = False
    try:
        rules, recording = kernel_audit.rules(), kernel_audit.enabled()
    except OSError as failure:
        supported = failure.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)
        error = failure.strerror or str(failure)
    socket = file_status.read(layout.socket) if layout.socket else None
    kernel = next(iter(kernel_version.check(host)))
    paths = [path for path in recorded_paths(layout).values() if path]
    return HostState(
        layout=layout,
        data_mount=mount_of(os.path.realpath(layout.root), host.mounts),
        root_device=getattr(mount_of("/", host.mounts), "device", ""),
        socket=socket,
        socket_users=group_users(socket.gid) if socket else (),
        rules=rules,
        rules_error=error,
        rules_supported=supported,
        recording=recording,
        absent=frozenset(path for path in paths if not os.path.lexists(path)),
        cves=kernel.effective if kernel.verdict is Verdict.FAILS else "",
        weak_sysctls=tuple(row.id for row in sysctls.check(host) if row.verdict is Verdict.RELAXED),
        rows=rows,
        directories=frozenset(path for path in paths if os.path.isdir(path)),
        run_status=file_status.read(layout.run) if layout.run else None,
    )


def mount_of(path: str, mounts: tuple[MountInfo, ...]) -> MountInfo | None:
    """Return the mount that a path without symbolic links is on; the topmost of equal ones."""
    best = None
    for mount in mounts:
        target = mount.target.rstrip("/") + "/"
        if (path.rstrip("/") + "/").startswith(target) and (
            best is None or len(target) >= len(best.target.rstrip("/") + "/")
        ):
            best = mount
    return best


def group_users(gid: int) -> tuple[str, ...]:
    """Return the users of a group other than root: its members, and those with it as their own."""
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        members = set()
    members |= {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid and user.pw_uid != 0}
    return tuple(sorted(members - {"root"}))


# -- audit rules ------------------------------------------------------------------------------

RECORDED: tuple[tuple[str, int, str, str], ...] = (
    ("1.1.3", 1, "the engine's code", "package"),
    ("1.1.4", 1, "the runtime directory", "run"),
    ("1.1.5", 1, "the data directory", "root"),
    ("1.1.6", 1, "the directory of settings", "config_directory"),
    ("1.1.7", 2, "the service unit", "service_unit"),
    ("1.1.8", 2, "the socket of CRI", "cri_socket"),
    ("1.1.9", 2, "the API socket", "socket"),
    ("1.1.10", 2, "the environment of the service (Debian)", "environment_file"),
    ("1.1.11", 2, "daemon.json", "config_file"),
    ("1.1.12", 2, "the policy", "policy"),
    ("1.1.13", 2, "the environment of the service (Red Hat)", "sysconfig_file"),
    ("1.1.14", 2, "the interpreter that runs the engine", "interpreter"),
    ("1.1.15", 2, "the command jaula", "command"),
    ("1.1.16", 2, "the socket unit", "socket_unit"),
    ("1.1.17", 2, "the command jaula-runtime", "own_runtime"),
    ("1.1.18", 2, "another OCI runtime", "other_runtime"),
)
"""Number, level, what is recorded, and the member of :class:`Layout` with its path.

Of these, 1.1.3 to 1.1.6 are of level 1 in the benchmark.
"""


def recorded_paths(layout: Layout) -> dict[str, str]:
    """Return the path of each control on audit rules, by its number; '' without one. Pure."""
    return {id: getattr(layout, member) for id, _, _, member in RECORDED}


def covering_rule(
    path: str, rules: tuple[AuditRule, ...], *, directory: bool = False
) -> AuditRule | None:
    """Return a rule that records writes and changes of attributes of a path, or None. Pure.

    A rule for a file (``path``) that was loaded before the directory existed records changes of
    the directory alone, and not those below it.
    """
    needed = AUDIT_PERM_WRITE | AUDIT_PERM_ATTR
    for rule in rules:
        below = rule.directory and (path + "/").startswith(rule.directory.rstrip("/") + "/")
        same = rule.path == path and not directory
        if rule.records and rule.permissions & needed == needed and (same or below):
            return rule
    return None


def _recorded(member: str, what: str) -> Judge:
    def judge(state: HostState) -> Judgement:
        path = getattr(state.layout, member)
        if not path:
            return not_applicable(f"{what}: this engine has none")
        if path in state.absent:
            return not_applicable(f"{path} does not exist")
        volatile = path != state.layout.run and (path + "/").startswith(state.layout.run + "/")
        fix = AuditRuleFix(path, volatile)
        remediation = "jaula audit --fix writes the rule; auditd loads it"
        if state.rules is None and state.rules_supported:
            return unknown(f"the rules of audit cannot be read: {state.rules_error}")
        if state.rules is None:
            return fails("this kernel has no audit subsystem", remediation, fix)
        rule = covering_rule(path, state.rules, directory=path in state.directories)
        if rule is None:
            return fails(f"no loaded audit rule has {path}", remediation, fix)
        if not state.recording:
            return fails(
                f"a rule has {path}, but audit is disabled", "auditctl -e 1, or run auditd"
            )
        key = f", key {rule.key}" if rule.key else ""
        return passes(f"loaded rule on {rule.path or rule.directory}{key}")

    return judge


# -- the other controls -----------------------------------------------------------------------


def _partition(state: HostState) -> Judgement:
    mount, root = state.data_mount, state.layout.root
    remediation = f"mount a file system of its own at {root}"
    if mount is None:
        return unknown(f"no mount of the host contains {root}")
    evidence = f"{root} is on {mount.target} ({mount.source}, {mount.fstype})"
    if mount.target == "/":
        return fails(evidence, remediation)
    if mount.device == state.root_device:
        return fails(f"{evidence}, which is the file system of /", remediation)
    return passes(evidence)


def _users(state: HostState) -> Judgement:
    socket = state.socket
    if socket is None:
        return not_applicable(f"{state.layout.socket or 'no unix socket'}: no engine listens there")
    if socket.mode & 0o006:
        return fails(f"every user may connect: {socket.describe()}", "chmod o-rwx the socket")
    if socket.mode & 0o060 and state.socket_users:
        users = ", ".join(state.socket_users)
        return manual(
            f"{socket.describe()}; the group has {users}",
            "confirm that each of them may use the engine, and give them rules in the policy",
        )
    return passes(f"{socket.describe()}; its group has no users besides root")


def _hardened(state: HostState) -> Judgement:
    if state.cves:
        return fails(f"kernel {state.cves}", "install and boot the newest kernel")
    weak = ", ".join(state.weak_sysctls)
    return manual(
        f"sysctls weaker than recommended: {weak}"
        if weak
        else "kernel and sysctls have no finding",
        "compare the host with the benchmark of its distribution; see jaula verify --host",
    )


def _version(state: HostState) -> Judgement:
    return manual(f"version {state.version}", "compare it with the newest release")


def _control(id: str, level: int, title: str, judge: Judge) -> Control:
    return Control(id, level, (Scope.HOST,), title, {Kind.HOST: judge})


CONTROLS: tuple[Control, ...] = (
    _control("1.1.1", 1, "The data directory has a file system of its own", _partition),
    _control("1.1.2", 1, "Only trusted users may connect to the engine", _users),
    *(
        _control(id, level, f"Changes of {what} are recorded", _recorded(member, what))
        for id, level, what, member in RECORDED
    ),
    _control("1.2.1", 1, "The host is hardened", _hardened),
    _control("1.2.2", 1, "The engine is up to date", _version),
)


def rules_of_file(state: HostState) -> dict[str, AuditRuleFix]:
    """Return what the engine's own file of rules shall have, by path. Pure.

    Left out is what another file records already: the kernel refuses a rule twice, and that would
    end the loading.
    """
    fixes = {}
    for path in recorded_paths(state.layout).values():
        if not path or path in state.absent:
            continue
        rule = covering_rule(path, state.rules or (), directory=path in state.directories)
        if rule is None or rule.key == AUDIT_KEY:
            volatile = path != state.layout.run and (path + "/").startswith(state.layout.run + "/")
            fixes[path] = AuditRuleFix(path, volatile)
    return fixes


def audit_rules_text(fixes: Mapping[str, AuditRuleFix]) -> str:
    """Return the rules of paths as a file of /etc/audit/rules.d. Pure.

    A line that names a path below an absent directory would end the loading, so volatile paths
    come last, after ``-c``, which continues. :func:`tmpfiles_text` creates that directory before.
    """
    lines = ["# Written by jaula audit --fix: changes of the engine's files are recorded."]
    ordered = sorted(fixes.values(), key=lambda fix: (fix.volatile, fix.path))
    for number, fix in enumerate(ordered):
        if fix.volatile and (number == 0 or not ordered[number - 1].volatile):
            lines += ["# Absent without the engine: continue if a rule cannot be loaded.", "-c"]
        lines.append(f"-w {fix.path} -p wa -k {AUDIT_KEY}")
    return "\n".join(lines) + "\n"


def tmpfiles_text(state: HostState) -> str:
    """Return an entry of tmpfiles.d(5) for the runtime directory, '' if it is not below /run. Pure.

    /run is empty at boot. The rules are loaded after systemd-tmpfiles-setup.service, so its
    directory exists, and a rule for it has everything below it.
    """
    status = state.run_status
    if status is None or not (status.path + "/").startswith("/run/") or " " in status.path:
        return ""
    return (
        "# Written by jaula audit --fix: audit rules need this directory at boot.\n"
        f"d {status.path} {status.mode:04o} {status.uid} {status.gid} -\n"
    )
