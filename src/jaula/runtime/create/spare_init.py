"""Create an init ahead of a start, and pass the start to it: the parent's side of a spare init.

A start decides, from its own spec, whether the spare init has its shape: the same namespaces, id
maps, cgroup, devices and system directories. If it has not, the spare init is ended, and the start
creates another. Only what does not depend on a request is made ahead
(:mod:`jaula.runtime.init.spare`): limits, root, volumes, process, labels and filters come with the
start.

Facts about cgroup v2: to move a process takes a lock that waits for a grace period of RCU. So a
spare init is born in the cgroup of the container that it is meant for, and no other can have it.
"""

from __future__ import annotations

import _socket
import os
import signal
from collections.abc import Sequence

from msgspec import structs

from jaula.errors import RuntimeFailure, system_error_text
from jaula.kernel.namespaces import SharedPid
from jaula.kernel.openat2 import components
from jaula.kernel.poll import readable
from jaula.runtime import seqpacket
from jaula.runtime.create import mount_plan, namespace_plan
from jaula.runtime.create.clone_process import FdStack, clone_into
from jaula.runtime.create.device_nodes import Console
from jaula.runtime.create.mount_rootfs import prepare_mounts
from jaula.runtime.init import init, process_setup
from jaula.runtime.init.init_sync import follow, report
from jaula.runtime.init.mask_steps import ReadonlyRoot, RootPropagation, WorkingDirectory
from jaula.runtime.init.mount_steps import AttachPrepared, MountFilesystem
from jaula.runtime.init.spare import SpareStart, encode
from jaula.runtime.init.step import SYSTEM_DIRECTORIES, SYSTEM_SLOTS, Step
from jaula.runtime.interfaces import Cgroup, Interfaces
from jaula.spec.runtime_spec import Linux, Resources, Spec, State

OF_START = (RootPropagation, Console, WorkingDirectory, ReadonlyRoot)
"""Steps that change the root or the process, and come after the system directories."""
_MAX_MOUNTS = seqpacket.MAX_DESCRIPTORS - 4  # the root and stdio are sent too
_MAX_TEXT = 1 << 15  # bytes of arguments, environment and annotations: a quarter of a message


class SpareInit:
    """A process that waits for its start, with its cgroup, and the shape that a start must have."""

    def __init__(
        self,
        pid: int,
        sock: _socket.socket,
        cgroup: Cgroup,
        spec: Spec,
        steps: tuple[Step, ...],
        sandbox: tuple[int, int],
    ) -> None:
        self.pid = pid
        self.sock = sock
        self.cgroup = cgroup
        self._spec = spec
        self._steps = steps
        self.slots = _slots(steps)
        self._namespaces = tuple(map(_identity, sandbox))

    def steps_left(self, spec: Spec, sandbox: tuple[int, int] | None) -> tuple[Step, ...] | None:
        """Return the steps that a start has left for the process, None if it cannot have it."""
        if (
            sandbox is None
            or tuple(map(_identity, sandbox)) != self._namespaces
            or _shape(spec) != _shape(self._spec)
            or not _is_small(spec)
            or readable(0, self.sock.fileno())  # it has exited
        ):
            return None
        return left(mount_plan.plan_in_cgroup(spec, self.cgroup.locations().values()), self._steps)

    def send(self, config: init.InitConfig) -> None:
        """Pass a start to the process.

        :raises OSError: when the process has exited.
        """
        fds = (config.root, *config.prepared_mounts.values())
        if not config.terminal:
            fds += config.stdio
        data = encode(
            SpareStart(
                tuple(config.prepared_mounts),
                config.steps,
                config.process,
                config.hostname,
                config.domainname,
                config.terminal,
            )
        )
        seqpacket.send(self.sock, data, fds)

    def end(self) -> None:
        """End the process, and remove its cgroup.

        The cgroup is not frozen for that: the caller may be killed, with its shim, at any moment.
        """
        self.sock.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.cgroup.destroy()


def create(
    spec: Spec, mount_point: str, sandbox: tuple[int, int], interfaces: Interfaces
) -> SpareInit:
    """Create a spare init for containers of the shape of ``spec``.

    ``sandbox`` are its user and network namespace. Nothing is left of it if this fails.

    :raises RuntimeFailure: when a step fails.
    """
    linux, process_spec = spec.linux, spec.process
    if linux is None or process_spec is None or linux.cgroups_path is None:
        raise RuntimeFailure("the spec of a spare init has no process, linux or cgroup")
    fd_stack = FdStack()
    try:
        cgroup = interfaces.cgroups.create(linux.cgroups_path)
        try:
            cgroup.apply(devices_of(linux))
            ns = namespace_plan.plan(linux, sandbox, fd_stack)
            steps = _ahead(mount_plan.plan_in_cgroup(spec, cgroup.locations().values()))
            config = init.InitConfig(
                join=ns.join,
                mapped=ns.user_fd is not None,
                create=ns.create,
                time_offsets=namespace_plan.time_offsets(linux),
                mount_point=mount_point,
                own_mounts=ns.own_mounts,
                pivot=True,
                propagation=mount_plan.host_propagation(linux),
                root=-1,
                unused=(),
                prepared_mounts=prepare_mounts(
                    spec, user_fd=ns.user_fd, owner=ns.owner, fd_stack=fd_stack
                ),
                prepare_inside=None,
                steps=steps,
                process=process_setup.prepare(
                    process_spec,
                    structs.replace(linux, seccomp=None),
                    State("", "creating", ""),
                    interfaces,
                    fd_stack,
                    annotations={},
                ),
                hostname=None,
                domainname=None,
                terminal=False,
                console=(0, 0),
                stdio=(-1, -1, -1),
                shared_pid=SharedPid(),
                spare=True,
            )
            pid, sock = _fork(config, spec, cgroup, fd_stack)
        except BaseException:
            fd_stack.close()
            cgroup.destroy()  # `follow` has killed the processes, without freezing them
            raise
    except OSError as error:
        raise RuntimeFailure(
            system_error_text("the spare init cannot be created", error)
        ) from error
    finally:
        fd_stack.close()
    return SpareInit(pid, sock, cgroup, spec, steps, sandbox)


def _fork(
    config: init.InitConfig, spec: Spec, cgroup: Cgroup, fd_stack: FdStack
) -> tuple[int, _socket.socket]:
    """Fork the process and wait until it waits; return its pid and the socket to it."""
    assert config.shared_pid is not None
    assert spec.process is not None
    parent_sock, child_sock = seqpacket.pair()
    stage = clone_into(cgroup, fd_stack.fds, lambda error: report(child_sock, error, "cgroup"))
    if stage[0] == 0:
        parent_sock.close()
        init.stage(config, child_sock)
    child_sock.close()
    followed = _socket.socket(fileno=os.dup(parent_sock.fileno()))  # it is closed at the end
    try:
        pid, _ = follow(
            followed,
            stage,
            config.shared_pid,
            spec.process,
            (0, 0),
            died_message="the spare init died",
            waits_for_start=True,
        )
    except BaseException:
        parent_sock.close()
        raise
    return pid, parent_sock


def devices_of(linux: Linux) -> Resources:
    """Return the resources of a spec that a spare init has: the rules for devices."""
    return Resources(devices=linux.resources.devices if linux.resources is not None else ())


def left(steps: Sequence[Step], ahead: Sequence[Step]) -> tuple[Step, ...] | None:
    """Return the steps of a start without those that a spare init has made. Pure.

    The result begins with those that attach the system directories. It is None if the start lacks
    a step of the spare init, has them in another order, or has another one in these directories.
    """
    rest = iter(ahead)
    due = next(rest, None)
    remaining: list[Step] = []
    for step in steps:
        if step == due:
            due = next(rest, None)
        elif isinstance(step, OF_START) or _outside(step):
            remaining.append(step)
        else:
            return None
    if due is not None:
        return None
    first = 1 if remaining and isinstance(remaining[0], RootPropagation) else 0
    attached = [AttachPrepared(slot, f"/{name}", True) for name, slot in SYSTEM_SLOTS.items()]
    return (*remaining[:first], *attached, *remaining[first:])


def _outside(step: Step) -> bool:
    """Return whether a step mounts outside the system directories."""
    if not isinstance(step, AttachPrepared | MountFilesystem):
        return False
    return components(step.destination)[:1] not in [[name] for name in SYSTEM_DIRECTORIES]


def _ahead(steps: Sequence[Step]) -> tuple[Step, ...]:
    return tuple(step for step in steps if not isinstance(step, OF_START))


def _slots(steps: Sequence[Step]) -> frozenset[int]:
    """Return the indexes of the mounts of the spec that the parent has prepared."""
    return frozenset(step.slot for step in steps if isinstance(step, AttachPrepared))


def _is_small(spec: Spec) -> bool:
    """Return whether a start with this spec is small enough for one message. Pure."""
    process_spec = spec.process
    assert process_spec is not None
    texts = (*process_spec.args, *process_spec.env, *spec.annotations.values())
    return len(spec.mounts) <= _MAX_MOUNTS and sum(map(len, texts)) <= _MAX_TEXT


def _identity(fd: int) -> tuple[int, int]:
    st = os.fstat(fd)
    return st.st_dev, st.st_ino


def _shape(spec: Spec) -> object:
    """Return the parts of a spec that must be those of the spare init, besides its steps. Pure."""
    linux = spec.linux
    assert linux is not None
    return (
        spec.hooks,
        linux.seccomp.listener_path if linux.seccomp is not None else None,
        linux.namespaces,
        linux.uid_mappings,
        linux.gid_mappings,
        linux.cgroups_path,
        linux.time_offsets,
        linux.rootfs_propagation,
        linux.mount_label,
        linux.memory_policy,
        devices_of(linux),
        linux.devices,
    )
