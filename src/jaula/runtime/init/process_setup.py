"""Set up the process of a container: compile its configuration, and apply it before execve.

Used by init and by exec (runc: ``finalizeNamespace``). Follows capabilities(7), credentials(7),
runtime-spec config.md "process". :func:`prepare` runs in the parent: the one place that compiles
the seccomp program and connects to the seccomp agent. It encodes everything before the container's
root is entered. After that no module, codec or user database is loaded.

Facts about the order: the filter comes last, and execve is the only call after it, so a filter need
not allow what this program calls. Without no_new_privs a filter needs CAP_SYS_ADMIN in the user
namespace. It stays permitted and effective until then, and execve drops it: the new sets come from
the bounding, inheritable and ambient sets and the file (capabilities(7), "Transformation of
capabilities during execve()"). A Landlock domain is entered before, with the same privilege.
Changing the user id clears capabilities unless PR_SET_KEEPCAPS is set.

Facts about a seccomp listener: it follows runtime-spec config-linux.md, "Seccomp"
(``listenerPath``, ``listenerMetadata``) and "The Container Process State"; seccomp_unotify(2). The
parent connects to the agent with the host's view. The process sends the listener itself, since only
it has the descriptor. So the system call that sends it must not be one that the filter passes to
the agent: such a profile is refused beforehand. There the filter comes before the startContainer
hooks, which inherit it.
"""

from __future__ import annotations

import _socket
import array
import errno
import fcntl
import os
import stat
from collections.abc import Mapping, Sequence

import msgspec

from jaula.errors import InvalidRequest, RuntimeFailure
from jaula.kernel import capabilities, keyctl, process_calls, seccomp, tty
from jaula.runtime.create.clone_process import FdStack
from jaula.runtime.init.personality import personality_value
from jaula.runtime.init.process_labels import LabelFds, LabelRequest, write
from jaula.runtime.interfaces import Interfaces
from jaula.spec.annotations import LANDLOCK_ANNOTATION as LANDLOCK
from jaula.spec.runtime_spec import ContainerProcessState, Linux, Process, Seccomp, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.runtime.init import enter_landlock, memory_policy


_CAPABILITY_NUMBERS = {name: number for number, name in enumerate(capabilities.NAMES)}
_SYS_ADMIN = 1 << _CAPABILITY_NUMBERS["CAP_SYS_ADMIN"]
NULL_DEVICE = os.makedev(1, 3)
NOTIFY_SYSCALL = "sendmsg"  # the system call of :func:`send_listener`
_encode = msgspec.json.Encoder().encode


class ExecError(Exception):
    """A step failed; the text is for the user, the code is Docker's exit code."""

    def __init__(self, document: str, exit_code: int = 125) -> None:
        super().__init__(document)
        self.exit_code = exit_code


class SeccompListener(msgspec.Struct, frozen=True):
    """A connection to the seccomp agent, and the document to send, still without the pid."""

    socket: int
    document: ContainerProcessState


class ProcessConfig(msgspec.Struct, frozen=True):
    """The encoded configuration of a process; the masks are capability sets."""

    arguments: tuple[bytes, ...]
    environment: dict[bytes, bytes]
    cwd: bytes
    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int
    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int
    no_new_privileges: bool
    filter: tuple[bytes, int] | None
    labels: LabelRequest
    listener: SeccompListener | None = None  # connection to the seccomp agent
    session_keyring: bool = True  # whether to join a new session keyring
    personality: int | None = None
    landlock: enter_landlock.CompiledLandlock | None = None
    memory_policy: memory_policy.CompiledPolicy | None = None
    reset_affinity: bool = True  # whether it may run on every CPU of its cgroup


def prepare(
    process_spec: Process,
    linux: Linux,
    state: State,
    interfaces: Interfaces,
    fd_stack: FdStack,
    *,
    seccomp_cache: str | None = None,
    session_keyring: bool = True,
    annotations: Mapping[str, str],
    for_exec: bool = False,
) -> ProcessConfig:
    """Encode the process, compile its filter and rules, and check them.

    ``annotations`` are the spec's. ``for_exec`` says that the process joins a running container.

    :raises RuntimeFailure: when the process cannot be set up.
    :raises InvalidRequest: when the spec is invalid.
    """
    program = listener = None
    if linux.seccomp is not None:
        program = interfaces.seccomp_program(linux.seccomp, seccomp_cache)
        listener = connect_agent(linux.seccomp, state)
        if listener is not None:
            fd_stack.add(listener.socket)
    try:
        return encode_process(
            process_spec,
            program,
            listener=listener,
            session_keyring=session_keyring,
            personality=personality_value(linux.personality) if linux.personality else None,
            rules=_landlock_rules(annotations, for_exec=for_exec),
            policy=_memory_policy(linux),
            reset_affinity=not (for_exec and process_spec.exec_cpu_affinity),
        )
    except ExecError as exec_error:
        raise RuntimeFailure(str(exec_error), exit_code=exec_error.exit_code) from None


def _landlock_rules(
    annotations: Mapping[str, str], *, for_exec: bool
) -> enter_landlock.CompiledLandlock | None:
    """Compile Landlock rules; the module (2 ms) is imported only if a spec has some."""
    if LANDLOCK not in annotations:
        return None
    from jaula.runtime.init import enter_landlock

    return enter_landlock.prepare(annotations, for_exec=for_exec)


def _memory_policy(linux: Linux) -> memory_policy.CompiledPolicy | None:
    if linux.memory_policy is None:
        return None
    from jaula.runtime.init import memory_policy

    return memory_policy.prepare(linux.memory_policy)


def connect_agent(seccomp: Seccomp, state: State) -> SeccompListener | None:
    """Connect to the seccomp agent; return None if the filter has no notify action.

    The caller closes the socket.

    :raises InvalidRequest: when there is no agent, or the filter would catch the sending itself.
    :raises RuntimeFailure: when the agent does not listen.
    """
    notified = {
        name for call in seccomp.syscalls if call.action == "SCMP_ACT_NOTIFY" for name in call.names
    }
    if not notified and seccomp.default_action != "SCMP_ACT_NOTIFY":
        return None
    if not seccomp.listener_path:
        raise InvalidRequest("seccomp: SCMP_ACT_NOTIFY is used, but listenerPath is not set")
    if NOTIFY_SYSCALL in notified or seccomp.default_action == "SCMP_ACT_NOTIFY":
        raise InvalidRequest(
            f"seccomp: SCMP_ACT_NOTIFY cannot be used for {NOTIFY_SYSCALL} "
            "nor as the default action",
            hint=f"{NOTIFY_SYSCALL} passes the listener to the agent",
        )
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        agent.connect(seccomp.listener_path)
    except OSError as error:
        agent.close()
        raise RuntimeFailure(
            f"seccomp: cannot reach the agent at listenerPath {seccomp.listener_path}: {error}"
        ) from None
    document = ContainerProcessState(
        fds=("seccompFd",), metadata=seccomp.listener_metadata or "", state=state
    )
    return SeccompListener(agent.detach(), document)


def encode_process(
    process_spec: Process,
    filter: tuple[bytes, int] | None,
    *,
    listener: SeccompListener | None = None,
    session_keyring: bool = True,
    personality: int | None = None,
    rules: enter_landlock.CompiledLandlock | None = None,
    policy: memory_policy.CompiledPolicy | None = None,
    reset_affinity: bool = True,
) -> ProcessConfig:
    """Encode and check the process section of a spec.

    :raises ExecError: when a field is invalid.
    """
    if not process_spec.args:
        raise ExecError("no command specified")
    if not process_spec.cwd.startswith("/"):
        raise ExecError(f"working directory {process_spec.cwd!r} is not absolute")
    if (os.path.normpath(process_spec.cwd) + "/").replace("//", "/").startswith("/proc/"):
        raise ExecError(
            f"working directory {process_spec.cwd!r} is below /proc, which is not allowed"
        )
    environment: dict[bytes, bytes] = {}
    for entry in process_spec.env:
        name, separator, value = os.fsencode(entry).partition(b"=")
        if name and separator:
            environment[name] = value
    sets = process_spec.capabilities
    return ProcessConfig(
        tuple(os.fsencode(argument) for argument in process_spec.args),
        environment,
        os.fsencode(process_spec.cwd),
        process_spec.user.uid,
        process_spec.user.gid,
        process_spec.user.additional_gids,
        0o022 if process_spec.user.umask is None else process_spec.user.umask,
        _capability_mask(sets.bounding if sets else ()),
        _capability_mask(sets.effective if sets else ()),
        _capability_mask(sets.permitted if sets else ()),
        _capability_mask(sets.inheritable if sets else ()),
        _capability_mask(sets.ambient if sets else ())
        & _capability_mask(sets.permitted if sets else ())
        & _capability_mask(sets.inheritable if sets else ()),  # capset(2) refuses any other
        process_spec.no_new_privileges,
        filter,
        LabelRequest(
            os.fsencode(process_spec.apparmor_profile) if process_spec.apparmor_profile else None,
            os.fsencode(process_spec.selinux_label) if process_spec.selinux_label else None,
            process_spec.no_new_privileges,
        ),
        listener,
        session_keyring,
        personality,
        rules,
        policy,
        reset_affinity,
    )


def _capability_mask(names: tuple[str, ...]) -> int:
    """Return the bit mask for capability names.

    Unknown names are skipped; validation warned about them.
    """
    mask = 0
    for name in names:
        if name in _CAPABILITY_NUMBERS:
            mask |= 1 << _CAPABILITY_NUMBERS[name]
    return mask


def take_stdio(
    stdin: int,
    stdout: int,
    stderr: int,
    *,
    terminal: bool,
    preserve: int = 0,
    inherited: tuple[int, ...] = (),
    keep: tuple[int, ...] = (),
) -> tuple[int, ...]:
    """Start a session, put the three descriptors in place, and set the controlling terminal.

    The caller has entered the container's root. A null device of the host becomes the container's.

    ``preserve`` descriptors from 3 on stay open, and so do those in ``keep`` (-1: none), which are
    moved; their new numbers are returned. All others are closed. Those of ``inherited`` are moved
    to 3 and on first.
    """
    os.setsid()
    first = 3 + preserve
    moved_fds = tuple(
        fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(first, 10)) if fd >= 0 else -1 for fd in keep
    )
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(first, 10)) for fd in inherited]
    for number, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, number, inheritable=True)
        _reopen_null(number)
    for number, fd in enumerate(sources, 3):
        os.dup2(fd, number)
    if terminal:
        tty.make_controlling(0)
    process_calls.close_fds_except((*range(3, first), *(fd for fd in moved_fds if fd >= 0)))
    return moved_fds


def _reopen_null(number: int) -> None:
    """Replace the host's null device at a descriptor by that of the root (runc: reOpenDevNull).

    A container without a user namespace could change the owner and mode of the host's device by
    this descriptor. A root without a null device, or one that may not be opened, changes nothing.
    """
    if not _is_null(number):
        return
    access = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    flags = access | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open("/dev/null", flags)
    except OSError:
        return
    try:
        if _is_null(fd):
            os.set_blocking(fd, True)
            os.dup2(fd, number, inheritable=True)
    finally:
        os.close(fd)


def _is_null(fd: int) -> bool:
    st = os.fstat(fd)
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == NULL_DEVICE


def drop(config: ProcessConfig, label_fds: LabelFds, *, in_cwd: bool) -> None:
    """Drop privileges; :func:`confine` and execve come next.

    CAP_SYS_ADMIN is kept where the filter needs it. ``in_cwd`` says that :func:`try_cwd` has
    entered the working directory; otherwise the process's user enters it.
    """
    if config.session_keyring:
        keyctl.join_new_session()
    if config.personality is not None:
        process_calls.personality(config.personality)
    if config.reset_affinity:
        process_calls.reset_affinity()
    if config.memory_policy is not None:
        config.memory_policy.apply()
    if config.landlock is not None:
        config.landlock.enter()
    capabilities.drop_bounding(config.bounding)
    capabilities.keep_on_setuid(True)
    set_groups(config.groups)
    os.setresgid(config.gid, config.gid, config.gid)
    os.setresuid(config.uid, config.uid, config.uid)
    os.umask(config.umask)
    capabilities.keep_on_setuid(False)
    if not in_cwd:
        enter_cwd(config.cwd)
    kept = 0 if config.filter is None or config.no_new_privileges else _SYS_ADMIN
    capabilities.capset(config.effective | kept, config.permitted | kept, config.inheritable)
    capabilities.clear_ambient()
    if config.ambient:
        capabilities.raise_ambient(config.ambient)
    write(config.labels, label_fds)


def confine(config: ProcessConfig, pid: int) -> None:
    """Set no_new_privs and install the filter, as the last step before execve.

    ``pid`` is the host pid of the process, for the seccomp agent.
    """
    if config.no_new_privileges:
        process_calls.prctl(process_calls.PR_SET_NO_NEW_PRIVS, 1)
    if config.filter is None:
        return
    program, flags = config.filter
    if config.listener is None:
        seccomp.install(program, flags)
        return
    document = notify_message(config.listener, pid)
    fd = seccomp.install(program, flags, listener=True)
    assert fd is not None
    send_listener(config.listener, document, fd)


def notify_message(listener: SeccompListener, pid: int) -> bytes:
    """Return the document for the process ``pid``, in the agent's pid namespace."""
    return _encode(msgspec.structs.replace(listener.document, pid=pid))


def send_listener(listener: SeccompListener, document: bytes, fd: int) -> None:
    """Send the document with the listener's descriptor, and close both here."""
    agent = _socket.socket(fileno=listener.socket)
    rights = array.array("i", (fd,))
    agent.sendmsg([document], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    agent.close()
    os.close(fd)


def become_root() -> None:
    """Become root of the user namespace that was just joined, and stay untraceable."""
    set_groups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    process_calls.prctl(process_calls.PR_SET_DUMPABLE, 0)


def set_groups(groups: Sequence[int]) -> None:
    """Set the supplementary groups, if the user namespace allows it.

    A user namespace created without privileges does not (user_namespaces(7), "setgroups"). The
    groups stay unchanged there.

    :raises ExecError: when groups are requested that cannot be set.
    """
    try:
        os.setgroups(groups)
    except PermissionError:
        if groups:
            raise ExecError("additional groups cannot be set in this user namespace") from None


def enter_cwd(cwd: bytes) -> None:
    """Enter the working directory.

    :raises ExecError: when that fails; without permission the exit code is 126.
    """
    try:
        os.chdir(cwd)
    except OSError as error:
        raise ExecError(
            f"working directory {os.fsdecode(cwd)!r}: {error.strerror}",
            126 if error.errno == errno.EACCES else 125,
        ) from None
    try:
        inside = os.getcwdb().startswith(b"/")
    except OSError:
        inside = False
    if not inside:
        raise ExecError(f"working directory {os.fsdecode(cwd)!r} is outside the container")


def try_cwd(cwd: bytes) -> bool:
    """Enter the working directory as the runtime's user; return False without permission.

    :raises ExecError: when it cannot be entered for another reason.
    """
    try:
        enter_cwd(cwd)
    except ExecError as exec_error:
        if exec_error.exit_code != 126:
            raise
        return False
    return True
