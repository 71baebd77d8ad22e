"""Dump a running container: its images are written while all its processes are stopped.

Runs in a helper of the container's shim. CRIU stops the processes, writes the images, and asks
before it kills or continues them (its notification ``post-dump``). The engine records the
checkpoint in that moment and answers. So a container is killed only if its checkpoint is complete,
and an engine that ends meanwhile leaves the container running.

Facts about a CRIU that is killed in that moment: the kernel lets the processes go, but packets stay
blocked, and sockets stay in repair mode, in which a program cannot read them. So the cgroup is
frozen meanwhile, and thawed when that is mended. A container that ends has SIGKILL pending before
it is thawed: whatever becomes of CRIU, no process runs after its checkpoint was recorded.
"""

from __future__ import annotations

import _socket
import contextlib
import functools
import os
import re
import signal
import stat
import time
from collections.abc import Collection, Iterable

import msgspec

from jaula.errors import FREE_SPACE, FULL, JaulaError, RuntimeFailure
from jaula.features.checkpoint.runtime import (
    affinity,
    check_images,
    criu,
    criu_images,
    expected,
    inherited_namespaces,
    pre_dump,
    restore_network,
)
from jaula.features.checkpoint.runtime.check_images import refuse
from jaula.features.checkpoint.runtime.migration_hold import Hold
from jaula.features.checkpoint.runtime.proto import rpc_pb2
from jaula.kernel import mountinfo, namespaces
from jaula.runtime import seqpacket
from jaula.runtime.interfaces import Cgroup
from jaula.runtime.shim_protocol import (
    COMMIT,
    HELD,
    READY,
    ROUND,
    STOP,
    CheckpointRequest,
    PreDumpRound,
)
from jaula.spec.runtime_spec import Spec

GHOST_LIMIT = 64 << 20  # bytes of an open file without a name that images may hold
_NETWORK_IMAGES = ("netns-ct-", "netns-exp-")  # of conntrack
TIMEOUT = 60  # seconds for the processes to stop
_RUN_ID = re.compile(rb"CRIU run id = ([0-9a-f-]{36})\n")
_LOG_HEAD = 4096  # bytes of CRIU's log that have its ids
_NAMESPACES = ("user", "net", "pid", "mnt", "ipc", "uts", "cgroup", "time")
_TCP_LISTEN, _TCP_TIME_WAIT, _TCP_CLOSE = "0A", "06", "07"  # columns of /proc/net/tcp

_STATELESS = (1, 4, 5, *range(136, 144))  # majors: memory (/dev/null), terminals

_REFUSED_FILES = {
    "anon_inode:[io_uring]": "an io_uring",
    "anon_inode:[userfaultfd]": "a userfaultfd",
    "anon_inode:[perf_event]": "a perf event",
    "anon_inode:[fanotify]": "a fanotify group",
    "anon_inode:bpf-map": "a BPF map",
    "anon_inode:bpf-prog": "a BPF program",
    "anon_inode:kvm-vm": "a virtual machine",
    "anon_inode:seccomp notify": "a seccomp listener",
    "anon_inode:[landlock-ruleset]": "a Landlock ruleset",
}
_HINTS = {
    "unix: Dangling connection": "close connections to unix sockets outside of the container",
    "unix: External socket": "close connections to unix sockets outside of the container",
    "increase limit": f"close deleted files that are larger than {GHOST_LIMIT >> 20} MiB",
    "The socket has data to read": "try again: a netlink socket had unread messages",
    "sockets: Can't get 1:": "install CRIU 4.2 or later, which can save sockets on this kernel",
    **{os.strerror(number): FREE_SPACE for number in FULL},
}
"""Ways out, by a part of CRIU's reason."""


def dump(
    spec: Spec,
    confinement: check_images.Expected,
    request: CheckpointRequest,
    init: int,
    cgroup: Cgroup,
    fd: int,
    held: Hold | None = None,
) -> None:
    """Write the images; ``fd`` is a socket on which the engine decides at the end.

    ``cgroup`` is that of the container, and ``init`` its first process. The images are checked as a
    restore does, before the container is killed. With ``held`` the decision may come from a later
    engine, and only a decision ends the hold
    (:mod:`jaula.features.checkpoint.runtime.migration_hold`).

    :raises InvalidRequest: when the container uses what no checkpoint can hold.
    :raises RuntimeFailure: with CRIU's reason, or when the engine did not commit. The container
        runs on.
    """
    pids = cgroup.pids()
    inherited = expected.inherited_namespaces(spec)
    is_tcp = request.tcp_established or request.tcp_close
    check_container(init, pids, tcp=is_tcp, inherited=inherited)
    fds = inherited_namespaces.open_all(init, inherited)
    commit = _socket.socket(fileno=fd)
    aborted: list[str] = []
    is_frozen = is_killed = False
    stopped_at = time.monotonic_ns()

    def stopped(_pid: int, _fds: list[int]) -> bool:
        nonlocal stopped_at
        stopped_at = time.monotonic_ns()
        return True

    def wait_for_group(_pid: int, _fds: list[int]) -> bool:
        nonlocal stopped_at
        try:
            if request.group:
                seqpacket.send(commit, READY)
                if not service.wait_for(commit):
                    aborted.append("criu was killed")
                    return False
                answer, _ = seqpacket.receive(commit)
                if answer != STOP:
                    aborted.append("another container of the group has failed")
                    return False
            stopped_at = time.monotonic_ns()
            # CRIU reports no lock of a network that it is in, and locks known connections only.
            if held is not None and "network" in inherited:
                restore_network.lock(init)
        except OSError as error:
            aborted.append(str(error))
            return False
        return True

    def hold(_pid: int, _fds: list[int]) -> bool:
        nonlocal is_frozen, is_killed
        try:
            for name in os.listdir(directory):
                # The engine sets the network up itself, and a restore makes the parent directory.
                if name.startswith(_NETWORK_IMAGES) or name == criu_images.PARENT:
                    os.unlink(name, dir_fd=directory)
            rounds.remove()
            affinity.write(directory, pids)
            check_images.check(criu_images.read_all(directory), confinement)
            cgroup.freeze(wait=False)
            is_frozen = True
            report = HELD + b" %d" % (time.monotonic_ns() - stopped_at)
            if held is not None:
                answer = held.wait(commit, report)
            else:
                seqpacket.send(commit, report)
                if not service.wait_for(commit):
                    aborted.append("criu was killed")
                    return False
                answer, _ = seqpacket.receive(commit)
        except criu_images.InvalidImages as error:
            aborted.append(f"a restore would be refused: {error.problem}")
            return False
        except (OSError, JaulaError) as error:
            aborted.append(str(error))
            return False
        if answer != COMMIT:
            aborted.append(answer.decode(errors="replace") or "the engine has ended")
            return False
        if not request.leave_running:
            is_killed = True
            for pid in cgroup.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            is_frozen = False
            cgroup.thaw()
        return True

    def report(done: PreDumpRound) -> None:
        seqpacket.send(commit, ROUND + msgspec.json.encode(done))

    directory = os.open(request.images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # Log and statistics are written after the engine has recorded the images.
    work = os.open(f"{request.images}/..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    start_criu = functools.partial(
        criu.Criu, prepare=functools.partial(inherited_namespaces.enter, fds)
    )
    rounds = pre_dump.Rounds(work, directory, start_criu, report)
    try:
        options = rpc_pb2.Options(
            images_dir_fd=directory,
            work_dir_fd=work,
            pid=init,
            leave_running=request.leave_running,
            tcp_established=request.tcp_established,
            tcp_close=request.tcp_close,
            file_locks=True,
            link_remap=True,
            ghost_limit=GHOST_LIMIT,
            shell_job=bool(spec.process and spec.process.terminal),
            orphan_pts_master=bool(spec.process and spec.process.terminal),
            log_level=criu.LOG_LEVEL,
            log_file=criu.LOG,
            notify_scripts=True,
            manage_cgroups=True,
            manage_cgroups_mode=rpc_pb2.SOFT,
            external=[f"mnt[{path}]:{path}" for path in _external(spec, init)],
            empty_namespaces=0 if "network" in inherited else int(namespaces.CLONE.NEWNET),
            network_lock=rpc_pb2.NFTABLES,
            timeout=TIMEOUT,
        )
        if request.pre_copy:
            rounds.run(options, request.pre_copy)
            if rounds.parent:  # CRIU takes '' for a path
                options.track_mem, options.parent_images = True, rounds.parent
            pids = cgroup.pids()
            check_container(init, pids, tcp=is_tcp, inherited=inherited)
        reuse = restore_network.address_reuse(pids) if request.tcp_established else {}
        try:
            with start_criu() as service:
                handlers = {
                    "pre-dump": wait_for_group,
                    "network-lock": stopped,
                    "post-dump": hold,
                }
                service.dump(options, handlers)
        except RuntimeFailure as error:
            if is_killed:
                return
            run_ids = _run_ids(work) if "network" in inherited else ("",)
            restore_network.unlock(init, pids, reuse, run_ids)  # CRIU does it, unless it was killed
            if aborted:
                raise RuntimeFailure(f"the checkpoint was not recorded: {aborted[0]}") from error
            error.hint = next(
                (hint for text, hint in _HINTS.items() if text in error.message), None
            )
            raise
        finally:
            if is_frozen:
                cgroup.thaw()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(criu.LOG, dir_fd=work)
    finally:
        rounds.remove()
        os.close(directory)
        os.close(work)
        commit.close()


def _run_ids(work: int) -> tuple[str, ...]:
    """Return the ids with which CRIU may have named its table, from the beginning of its log."""
    try:
        fd = os.open(criu.LOG, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=work)
    except FileNotFoundError:
        return ()
    with open(fd, "rb") as file:
        return tuple(each.decode() for each in _RUN_ID.findall(file.read(_LOG_HEAD)))


def _external(spec: Spec, init: int) -> list[str]:
    """Return the destinations of mounts that the engine makes.

    :raises InvalidRequest: when a mount is not where the spec says, or one lies below such a mount.
    """
    external = expected.external_mounts(spec)
    mounts = mountinfo.read(f"/proc/{init}/mountinfo")
    targets = {mount.target for mount in mounts}
    for path in external:
        if path not in targets:
            raise refuse(
                f"the mount at {path} is behind a symbolic link of the image",
                "mount it at the link's target",
            )
    planned = {expected.destination(mount) for mount in spec.mounts}
    for mount in mounts:
        above = next((path for path in external if mount.target.startswith(f"{path}/")), None)
        if above not in (None, "/dev") and mount.target not in planned:
            raise refuse(
                f"another file system is mounted at {mount.target}, below the mount at {above}",
                "mount that one explicitly, or mount the other one with bind-recursive=disabled",
            )
    return list(external)


def check_container(
    init: int, pids: tuple[int, ...], *, tcp: bool, inherited: Collection[str] = ()
) -> None:
    """Check that the processes use nothing that a checkpoint cannot hold.

    ``tcp`` says that established connections are saved or closed. ``inherited`` are the types of
    namespaces that the container does not have for itself.

    :raises InvalidRequest: with the way out.
    """
    own = _namespaces(init)
    root = os.stat(f"/proc/{init}/root")
    root_device = (os.major(root.st_dev) << 20) | os.minor(root.st_dev)
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has exited
            if _state(pid) == "Z":
                continue
            if tracer := _tracer(pid):
                raise refuse(
                    f"process {_describe(pid)} is traced by process {_describe(tracer)}",
                    "end that debugger first",
                )
            if _namespaces(pid) != own:
                raise refuse(
                    f"process {_describe(pid)} is in a namespace of its own, which no"
                    " checkpoint can hold",
                    "end that process first",
                )
            _check_files(pid, root_device)
            if "ipc" in inherited:
                _check_segments(pid)
    _check_queues(init)
    if "network" not in inherited:
        restore_network.check(init)
    sockets = _sockets(pids) if "network" in inherited else None
    if not tcp and (connection := _connection(init, sockets)):
        raise refuse(
            f"the container has an established TCP connection ({connection})",
            "use --tcp-established to save connections, or --tcp-close to close them",
        )


def _describe(pid: int) -> str:
    """Return a process for a message: its id on the host and its name."""
    with open(f"/proc/{pid}/comm", "rb") as file:
        name = file.read().decode(errors="replace").removesuffix("\n")
    return f"{pid} ({''.join(char if char.isprintable() else '?' for char in name)})"


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0].decode()


def _tracer(pid: int) -> int:
    """Return the process that traces one, such as strace; 0 if none does."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return int(file.read().partition("\nTracerPid:")[2].split("\n", 1)[0])


def _namespaces(pid: int) -> tuple[str, ...]:
    return tuple(os.readlink(f"/proc/{pid}/ns/{kind}") for kind in _NAMESPACES)


def _check_files(pid: int, root_device: int) -> None:
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            name = os.readlink(f"/proc/{pid}/fd/{number}")
            kind = _REFUSED_FILES.get(name)
            if kind is None and name.partition(":[")[0] in _NAMESPACES:
                kind = "a descriptor of a namespace"
            if kind is None and name.startswith("/") and _has_state(f"/proc/{pid}/fd/{number}"):
                kind = f"the device {name} open"
            if kind is not None:
                raise refuse(
                    f"process {_describe(pid)} has {kind} (descriptor {number}), which no"
                    " checkpoint can hold",
                    "close it first",
                )
            if name == "anon_inode:inotify":
                _check_inotify(pid, number, root_device)
            elif name == "anon_inode:[eventfd]":
                _check_eventfd(pid, number)


def _has_state(path: str) -> bool:
    """Return whether an open file is a device with state that CRIU does not save."""
    found = os.stat(path)
    if stat.S_ISBLK(found.st_mode):
        return True
    return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) not in _STATELESS


def _check_inotify(pid: int, number: str, root_device: int) -> None:
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
        for line in file:
            device = next((word[5:] for word in line.split() if word.startswith("sdev:")), None)
            if device is not None and int(device, 16) == root_device:
                raise refuse(
                    f"process {_describe(pid)} watches a file of the container's root with"
                    " inotify, which CRIU cannot save",
                    "let it watch files of a volume or tmpfs only",
                )


def _check_eventfd(pid: int, number: str) -> None:
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "eventfd-semaphore" and value.strip() == "1":
                raise refuse(
                    f"process {_describe(pid)} has an eventfd with EFD_SEMAPHORE (descriptor"
                    f" {number}), which CRIU would restore as a plain one",
                    "close it first",
                )


def _check_segments(pid: int) -> None:
    """Check that a process has no System V segment of an IPC namespace that is not saved."""
    with open(f"/proc/{pid}/maps", "rb") as file:
        for line in file:
            if line.split(maxsplit=5)[5:6] and line.split(maxsplit=5)[5].startswith(b"/SYSV"):
                raise refuse(
                    f"process {pid} has a System V shared memory segment, which belongs to the IPC"
                    " namespace that the container shares",
                    "let it use POSIX shared memory (/dev/shm), or create it with its own --ipc",
                )


def _check_queues(init: int) -> None:
    try:
        queues = os.listdir(f"/proc/{init}/root/dev/mqueue")
    except (FileNotFoundError, NotADirectoryError):
        return
    if queues:
        raise refuse(
            f"the container has the POSIX message queue /{queues[0]}, which CRIU cannot save",
            "let its programs remove their queues (mq_unlink) first",
        )


def _sockets(pids: Iterable[int]) -> set[str]:
    """Return the inodes of the sockets that processes have open."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has exited
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    name = os.readlink(f"/proc/{pid}/fd/{number}")
                    if name.startswith("socket:["):
                        inodes.add(name[8:-1])
    return inodes


def _connection(init: int, sockets: Collection[str] | None) -> str:
    """Return the number of established connections as text; '' without one.

    ``sockets`` are the inodes of those that count; None: all of the network namespace.
    """
    count = 0
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{init}/net/{name}", encoding="ascii") as file:
                rows = file.read().splitlines()[1:]
        except FileNotFoundError:
            continue
        found = (row.split() for row in rows)
        states = (row[3] for row in found if sockets is None or row[9] in sockets)
        count += sum(state not in (_TCP_LISTEN, _TCP_TIME_WAIT, _TCP_CLOSE) for state in states)
    return f"{count} in all" if count else ""
