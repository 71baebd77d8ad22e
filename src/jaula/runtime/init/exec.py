"""The last steps of every process in a container: from the engine's child to the user's program.

Used by init and by exec. Follows capabilities(7), credentials(7), runtime-spec config.md "process".
Everything is encoded and compiled in :func:`prepare`, before the container's root is entered; after
that no module, codec or user database is loaded.

Facts about the order: without no_new_privs a seccomp filter needs CAP_SYS_ADMIN in the user
namespace, so it is installed while the capabilities are still there; with no_new_privs it comes
last. A Landlock domain is entered before either, by the same privilege. Changing the user id clears
capabilities unless PR_SET_KEEPCAPS is set.
"""

from __future__ import annotations

import _socket
import array
import fcntl
import os
from collections.abc import Mapping, Sequence

import msgspec

from jaula.errors import InvalidRequest, RuntimeFailure
from jaula.kernel import capabilities, keyring, process, seccomp, tty
from jaula.runtime.create.process import FdStack
from jaula.runtime.init.lsm_labels import LabelRequest, Labels, write
from jaula.runtime.init.personality import personality_value
from jaula.runtime.interfaces import Interfaces
from jaula.spec.landlock import ANNOTATION as LANDLOCK
from jaula.spec.runtime import ContainerProcessState, Linux, Process, Seccomp, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.runtime.init import landlock


_NUMBERS = {name: number for number, name in enumerate(capabilities.NAMES)}
SENDER = "sendmsg"  # the call that :func:`send` makes
_encode = msgspec.json.Encoder().encode


class ExecError(Exception):
    """A step failed; the text goes to the user, the code is Docker's exit code."""

    def __init__(self, text: str, exit_code: int = 125) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class SeccompListener(msgspec.Struct, frozen=True):
    """Where a listener goes: a connected socket, and the document without the process's pid."""

    socket: int
    document: ContainerProcessState


class ProcessConfig(msgspec.Struct, frozen=True):
    """A process to become; masks are in the order of capset's sets."""

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
    listener: SeccompListener | None = None  # who hears of the filter's notifications
    session_keyring: bool = True  # whether the process gets one of its own
    personality: int | None = None
    landlock: landlock.CompiledLandlock | None = None


def prepare(
    wanted: Process,
    linux: Linux,
    state: State,
    parts: Interfaces,
    keep: FdStack,
    *,
    seccomp_cache: str | None = None,
    session_keyring: bool = True,
    annotations: Mapping[str, str],
    joining: bool = False,
) -> ProcessConfig:
    """Encode, compile and check; ``annotations`` are the spec's.

    Raises ``RuntimeFailure`` or ``InvalidRequest``.
    """
    program = listener = None
    if linux.seccomp is not None:
        program = parts.seccomp_program(linux.seccomp, seccomp_cache)
        listener = connect_agent(linux.seccomp, state)
        if listener is not None:
            keep.add(listener.socket)
    try:
        return encode_process(
            wanted,
            program,
            listener=listener,
            session_keyring=session_keyring,
            personality=personality_value(linux.personality) if linux.personality else None,
            rules=_rules(annotations, joining=joining),
        )
    except ExecError as failure:
        raise RuntimeFailure(str(failure), exit_code=failure.exit_code) from None


def _rules(annotations: Mapping[str, str], *, joining: bool) -> landlock.CompiledLandlock | None:
    """What is loaded for them, 2 ms, is loaded only where a spec has some."""
    if LANDLOCK not in annotations:
        return None
    from jaula.runtime.init import landlock

    return landlock.prepare(annotations, joining=joining)


def connect_agent(seccomp: Seccomp, state: State) -> SeccompListener | None:
    """A connection to the agent, or None where the filter notifies nobody.

    The caller closes the socket. Raises ``InvalidRequest`` where notifications have no agent or
    would catch their own sending, ``RuntimeFailure`` where the agent does not listen.
    """
    notified = {
        name for call in seccomp.syscalls if call.action == "SCMP_ACT_NOTIFY" for name in call.names
    }
    if not notified and seccomp.default_action != "SCMP_ACT_NOTIFY":
        return None
    if not seccomp.listener_path:
        raise InvalidRequest("seccomp: SCMP_ACT_NOTIFY is used, but listenerPath is not set")
    if SENDER in notified or seccomp.default_action == "SCMP_ACT_NOTIFY":
        raise InvalidRequest(
            f"seccomp: SCMP_ACT_NOTIFY cannot be used for {SENDER} nor as the default action",
            hint=f"{SENDER} is what hands the listener over",
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
    wanted: Process,
    filter: tuple[bytes, int] | None,
    *,
    listener: SeccompListener | None = None,
    session_keyring: bool = True,
    personality: int | None = None,
    rules: landlock.CompiledLandlock | None = None,
) -> ProcessConfig:
    """Encode and check everything. Raises :class:`ExecError`."""
    if not wanted.args:
        raise ExecError("no command was given and the image names none")
    if not wanted.cwd.startswith("/"):
        raise ExecError(f"working directory {wanted.cwd!r} is not absolute")
    if (os.path.normpath(wanted.cwd) + "/").replace("//", "/").startswith("/proc/"):
        raise ExecError(f"working directory {wanted.cwd!r} lies below /proc, which is refused")
    environment: dict[bytes, bytes] = {}
    for entry in wanted.env:
        name, separator, value = os.fsencode(entry).partition(b"=")
        if name and separator:
            environment[name] = value
    sets = wanted.capabilities
    return ProcessConfig(
        tuple(os.fsencode(argument) for argument in wanted.args),
        environment,
        os.fsencode(wanted.cwd),
        wanted.user.uid,
        wanted.user.gid,
        wanted.user.additional_gids,
        0o022 if wanted.user.umask is None else wanted.user.umask,
        _mask(sets.bounding if sets else ()),
        _mask(sets.effective if sets else ()),
        _mask(sets.permitted if sets else ()),
        _mask(sets.inheritable if sets else ()),
        _mask(sets.ambient if sets else ())
        & _mask(sets.permitted if sets else ())
        & _mask(sets.inheritable if sets else ()),  # the kernel refuses others
        wanted.no_new_privileges,
        filter,
        LabelRequest(
            os.fsencode(wanted.apparmor_profile) if wanted.apparmor_profile else None,
            os.fsencode(wanted.selinux_label) if wanted.selinux_label else None,
            wanted.no_new_privileges,
        ),
        listener,
        session_keyring,
        personality,
        rules,
    )


def _mask(names: tuple[str, ...]) -> int:
    """The bits of names; what is not known is left out, of which validation has told."""
    mask = 0
    for name in names:
        if name in _NUMBERS:
            mask |= 1 << _NUMBERS[name]
    return mask


def take_stdio(
    stdin: int,
    stdout: int,
    stderr: int,
    *,
    terminal: bool,
    preserve: int = 0,
    kept: tuple[int, ...] = (),
) -> tuple[int, ...]:
    """A session of its own, the three descriptors in place, the terminal as its controlling one.

    ``preserve`` descriptors from 3 on stay, and those in ``kept`` (-1: none), whose numbers from
    then on are returned; all others are closed.
    """
    os.setsid()
    first = 3 + preserve
    moved = tuple(
        fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, max(first, 10)) if fd >= 0 else -1 for fd in kept
    )
    for number, fd in enumerate((stdin, stdout, stderr)):
        os.dup2(fd, number, inheritable=True)
    if terminal:
        tty.make_controlling(0)
    process.close_others((*range(3, first), *(fd for fd in moved if fd >= 0)))
    return moved


def make_cwd(prepared: ProcessConfig) -> None:
    """Docker makes a missing working directory, owned by the container's root."""
    try:
        os.makedirs(prepared.cwd, 0o755, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ExecError(
            f"working directory {os.fsdecode(prepared.cwd)!r} is no directory"
        ) from None
    except OSError:
        return  # chdir tells what is wrong, as the process's own user


def drop(prepared: ProcessConfig, opened: Labels, pid: int) -> None:
    """Give up everything that the process is not to have; :func:`seal` and exec are next.

    ``pid`` is the process's number on the host, for the seccomp agent.
    """
    if prepared.session_keyring:
        keyring.join_new_session()
    if prepared.personality is not None:
        process.personality(prepared.personality)
    if prepared.landlock is not None:
        prepared.landlock.enter()
    capabilities.drop_bounding(prepared.bounding)
    if not prepared.no_new_privileges:
        _install_filter(prepared, pid)
    capabilities.keep_on_setuid(True)
    set_groups(prepared.groups)
    os.setresgid(prepared.gid, prepared.gid, prepared.gid)
    os.setresuid(prepared.uid, prepared.uid, prepared.uid)
    os.umask(prepared.umask)
    capabilities.keep_on_setuid(False)
    _enter_cwd(prepared.cwd)
    capabilities.capset(prepared.effective, prepared.permitted, prepared.inheritable)
    capabilities.clear_ambient()
    if prepared.ambient:
        capabilities.raise_ambient(prepared.ambient)
    write(prepared.labels, opened)


def seal(prepared: ProcessConfig, pid: int) -> None:
    """The very last: no new privileges, and with them the filter."""
    if prepared.no_new_privileges:
        process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
        _install_filter(prepared, pid)


def _install_filter(prepared: ProcessConfig, pid: int) -> None:
    if prepared.filter is None:
        return
    program, flags = prepared.filter
    if prepared.listener is None:
        seccomp.install(program, flags)
        return
    text = notify_message(prepared.listener, pid)
    fd = seccomp.install(program, flags, listener=True)
    assert fd is not None
    send_listener(prepared.listener, text, fd)


def notify_message(listener: SeccompListener, pid: int) -> bytes:
    """The document for the process ``pid``, as the agent's pid namespace numbers it."""
    return _encode(msgspec.structs.replace(listener.document, pid=pid))


def send_listener(listener: SeccompListener, text: bytes, fd: int) -> None:
    """Send the document with the listener's descriptor, and close both here."""
    agent = _socket.socket(fileno=listener.socket)
    rights = array.array("i", (fd,))
    agent.sendmsg([text], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    agent.close()
    os.close(fd)


def be_root() -> None:
    """Root of the user namespace that was just entered, and still not to be traced."""
    set_groups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    process.prctl(process.PR_SET_DUMPABLE, 0)


def set_groups(groups: Sequence[int]) -> None:
    """setgroups(2), where the user namespace allows it.

    One made without privilege does not (user_namespaces(7), "setgroups"): there the groups stay
    as they are, and asking for some raises :class:`ExecError`.
    """
    try:
        os.setgroups(groups)
    except PermissionError:
        if groups:
            raise ExecError("additional groups cannot be set in this user namespace") from None


def _enter_cwd(cwd: bytes) -> None:
    try:
        os.chdir(cwd)
    except OSError as error:
        raise ExecError(
            f"working directory {os.fsdecode(cwd)!r}: {error.strerror}",
            126 if error.errno == 13 else 125,
        ) from None
    try:
        inside = os.getcwdb().startswith(b"/")
    except OSError:
        inside = False
    if not inside:
        raise ExecError(f"working directory {os.fsdecode(cwd)!r} lies outside the container")
