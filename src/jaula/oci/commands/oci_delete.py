"""``delete``: delete a stopped container, or with ``--force`` one in any state.

Other commands use its parts to remove what they created: processes, cgroup, hooks, directory.

The usual container leaves an empty cgroup when its init has exited. To remove that takes one system
call for each hierarchy, and no driver: its modules would take longer than all the rest.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found] # without enumerations: 3 ms
import posix
import select

from jaula.errors import Conflict, CorruptState, InvalidRequest, JaulaError, NotFound
from jaula.oci.args import SWITCH, CommandArgs
from jaula.oci.runtime_container import CONFIG, Container, Record, frozen, open_process
from jaula.oci.runtime_settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.runtime.interfaces import Cgroup
    from jaula.spec import runtime_spec

FLAGS = {"force": SWITCH, "f": "force"}
USAGE = "[--force] CONTAINER-ID"
KILL_TIMEOUT = 10.0  # seconds
_POSTSTOP = b'"poststop"'


def run(args: CommandArgs) -> int:
    """Delete a container and its resources. With ``--force`` a missing one is not an error.

    ``--force`` kills the processes before it waits for the lock: a command that hangs while it
    creates or starts the container then gives up.
    """
    force = args.options.on("force")
    container_id = args.container_id()
    try:
        with Container.open(args.settings.root, container_id) as container:
            if force:
                _kill_remaining(_read_record(args, container))
            container.lock(wait_for_create=force)
            _delete(args, container, force=force)
    except NotFound:
        if not force:
            raise
    return 0


def _read_record(args: CommandArgs, container: Container) -> Record:
    """Return the record; an empty one if it is damaged."""
    try:
        return container.record()
    except CorruptState as error:
        args.log.warning(str(error))
        return Record(id=container.id, bundle="")


def _delete(args: CommandArgs, container: Container, *, force: bool) -> None:
    """Check the state, kill the processes, and remove the container."""
    record = _read_record(args, container) if force else container.record()
    status = "stopped" if not record.pid else container.status(record)
    if status not in ("stopped", "created") and not force:
        raise Conflict(
            f"cannot delete container {container.id} that is not stopped: {status}",
            hint="kill it first, or use --force",
        )
    args.log.step("kill every process")
    _kill_remaining(record)
    remove(args, container, record)


def _kill_remaining(record: Record) -> None:
    """Kill every process, and remove the cgroup if init was the last one.

    With a pid namespace of the container it is: the kernel kills all others before init has exited.
    In a frozen cgroup v1 no process exits.
    """
    if record.pid and not frozen(record):
        _kill_init(record)
        if _remove_empty_cgroup(record):
            return
    kill(record)


def _kill_init(record: Record) -> None:
    pidfd = open_process(record)
    if pidfd is None:
        return
    try:
        _send_kill(pidfd)
        _wait_for_exit(record, pidfd)
    finally:
        posix.close(pidfd)


def _send_kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has exited meanwhile


def kill(record: Record) -> None:
    """Kill init and every process of its cgroup; return when init has exited.

    :raises Conflict: when it does not exit in time.
    """
    pidfd = open_process(record)
    if pidfd is not None:
        _send_kill(pidfd)
    try:
        if record.cgroup:
            try:
                with _open_cgroup(record) as cgroup:
                    cgroup.kill()
            except NotFound:
                pass  # never made, or removed already
        if pidfd is not None:
            _wait_for_exit(record, pidfd)
    finally:
        if pidfd is not None:
            posix.close(pidfd)


def _wait_for_exit(record: Record, pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(KILL_TIMEOUT * 1000):
        raise Conflict(f"container {record.id}: process {record.pid} does not exit")


def remove(args: CommandArgs, container: Container, record: Record) -> None:
    """Remove what is left of a container whose init has exited; the directory goes last."""
    if record.cgroup:
        args.log.step(f"remove cgroup {record.cgroup}")
        if not _remove_empty_cgroup(record):
            _destroy_cgroup(record)
    try:
        config = container.read(CONFIG)
    except FileNotFoundError:
        config = b""
    if _POSTSTOP in config:
        from jaula.oci import bundle_documents

        try:
            run_poststop(args, record, bundle_documents.parse(config))
        except InvalidRequest as error:
            text = f"poststop hooks of container {record.id} are lost: {error}"
            args.log.warning(text)
    args.log.step(f"remove {container.path}")
    container.remove()


def _destroy_cgroup(record: Record) -> None:
    try:
        with _open_cgroup(record) as cgroup:
            cgroup.kill()
            cgroup.destroy()
    except NotFound:
        pass  # never made, or removed already


def _open_cgroup(record: Record) -> Cgroup:
    from jaula.oci import runtime_services

    settings = Settings(systemd_cgroup=record.systemd, rootless=record.rootless)
    return runtime_services.cgroup_driver(settings).open(record.cgroup)


def _remove_empty_cgroup(record: Record) -> bool:
    """Remove the cgroup in each hierarchy; return False if one is not empty.

    The kernel removes none with a process or another cgroup inside. A scope is systemd's to remove.
    """
    if record.systemd or not record.cgroup_paths:
        return False
    for path in dict.fromkeys(record.cgroup_paths.values()):
        try:
            posix.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError:
            return False  # the driver waits for processes that exit, and reports the others
    return True


def run_poststop(args: CommandArgs, record: Record, spec: runtime_spec.Spec) -> None:
    """Run the poststop hooks; one that fails is only logged."""
    if spec.hooks is None or not spec.hooks.poststop:
        return
    from jaula.runtime.init import oci_hooks

    record.pid = 0
    for hook in spec.hooks.poststop:
        args.log.step(f"hook {hook.path} is due")
        try:
            oci_hooks.run("poststop", (hook,), record.state("stopped"))
        except JaulaError as error:
            args.log.warning(str(error))
