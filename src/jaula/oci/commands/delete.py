"""The end of a container: its processes, its cgroup, its hooks, its directory."""

from __future__ import annotations

import errno
import os
import select
import signal

from jaula.errors import Conflict, CorruptState, InvalidRequest, JaulaError, NotFound
from jaula.oci import services
from jaula.oci.args import SWITCH, CommandArgs
from jaula.oci.container import CONFIG, Container, Record, alive
from jaula.oci.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec import runtime as oci

FLAGS = {"force": SWITCH, "f": "force"}
USAGE = "[--force] CONTAINER-ID"
KILL_SECONDS = 10.0
_POSTSTOP = b'"poststop"'


def run(call: CommandArgs) -> int:
    """Remove it with everything that belongs to it. With ``--force`` a missing one is no error.

    ``--force`` ends the processes before it waits for whoever holds the lock: one that hangs while
    it creates or starts the container gives up then.
    """
    force = call.options.on("force")
    container_id = call.container_id()
    try:
        with Container.find(call.settings.root, container_id) as container:
            if force:
                kill(_known(call, container))
            container.lock(unmade=force)
            _delete(call, container, force=force)
    except NotFound:
        if not force:
            raise
    return 0


def _known(call: CommandArgs, container: Container) -> Record:
    """What is kept of it, or next to nothing where that is damaged."""
    try:
        return container.record()
    except CorruptState as error:
        call.log.warning(str(error))
        return Record(id=container.id, bundle="")


def _delete(call: CommandArgs, container: Container, *, force: bool) -> None:
    record = _known(call, container) if force else container.record()
    status = "stopped" if not record.pid else container.status(record)
    if status not in ("stopped", "created") and not force:
        raise Conflict(
            f"cannot delete container {container.id} that is not stopped: {status}",
            hint="kill it first, or use --force",
        )
    kill(record)
    remove(call, container, record)


def open_process(record: Record) -> int | None:
    """A descriptor of init; None where it is gone.

    Its number is still known to the kernel while it is that of a session or process group, and no
    other process can have it; Linux before 6.15 says EINVAL then, as for the number of a thread.
    """
    if not record.pid:
        return None
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
    if alive(record):  # looked at after the descriptor was there: it is this process's
        return pidfd
    os.close(pidfd)
    return None


def kill(record: Record) -> None:
    """SIGKILL to init and to everything in its cgroup; returns when init is gone.

    Raises ``Conflict`` where it does not die in time.
    """
    pidfd = open_process(record)
    if pidfd is not None:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended meanwhile, which is what is wanted
    try:
        settings = Settings(systemd_cgroup=record.systemd, rootless=record.rootless)
        if record.cgroup:
            try:
                with services.cgroup_driver(settings).open(record.cgroup) as cgroup:
                    cgroup.kill()
            except NotFound:
                pass  # never made, or removed already
        if pidfd is not None and not _ended(pidfd):
            raise Conflict(f"container {record.id}: process {record.pid} does not end")
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(KILL_SECONDS * 1000))


def remove(call: CommandArgs, container: Container, record: Record) -> None:
    """Remove what is left of a container whose init has ended; the directory goes last."""
    settings = Settings(systemd_cgroup=record.systemd, rootless=record.rootless)
    if record.cgroup:
        try:
            with services.cgroup_driver(settings).open(record.cgroup) as cgroup:
                cgroup.kill()
                cgroup.destroy()
        except NotFound:
            pass  # never made, or removed already
    try:
        config = container.read(CONFIG)
    except FileNotFoundError:
        config = b""
    if _POSTSTOP in config:
        from jaula.oci import bundle as bundles

        try:
            poststop(call, record, bundles.parse(config))
        except InvalidRequest as error:
            text = f"poststop hooks of container {record.id} are lost: {error}"
            call.log.warning(text)
    container.remove()


def poststop(call: CommandArgs, record: Record, spec: oci.Spec) -> None:
    """Run the hooks that follow a container's end; one that fails is only reported."""
    if spec.hooks is None or not spec.hooks.poststop:
        return
    from jaula.runtime.init import hooks

    record.pid = 0
    for hook in spec.hooks.poststop:
        try:
            hooks.run("poststop", (hook,), record.state("stopped"))
        except JaulaError as error:
            call.log.warning(str(error))
