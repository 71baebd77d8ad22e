"""``start``: start the program of a created container, and run the hooks that follow."""

from __future__ import annotations

import posix

from jaula.errors import Conflict, JaulaError, RuntimeFailure
from jaula.oci.args import CommandArgs
from jaula.oci.runtime_container import CONFIG, SOCKET, Container, Record, executed, open_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.oci.notify_socket import NotifySocket

FLAGS: dict[str, str] = {}
USAGE = "CONTAINER-ID"
START = b"S"  # init waits for this message
HOOKS_DONE = b"D"  # init sends this after its startContainer hooks
_START_HOOKS = b'"startContainer"'
_POSTSTART = b'"poststart"'
_SECCOMP = b'"seccomp"'
_LABELS = (b'"apparmorProfile"', b'"selinuxLabel"')


def run(args: CommandArgs) -> int:
    """Start the container; return when its program runs."""
    with Container.open(args.settings.root, args.container_id()) as container:
        container.lock(wait_for_create=False)
        record = container.record()
        status = container.status(record)
        if status == "stopped":
            raise Conflict("cannot start a container that has stopped")
        if status != "created":
            raise Conflict("cannot start an already running container")
        notify = _notify_socket(args, container)
        args.log.step(f"tell process {record.pid} to continue")
        start_init(container, record)
        args.log.step("the program runs")
        verify_labels(container, record)
        container.unlock()  # a hook may want to use the container
        run_poststart(args, container, record)
        if notify is not None:
            args.log.step("wait until the program is ready")
            notify.wait_for_ready(record.pid, open_process(record))
    return 0


def _notify_socket(args: CommandArgs, container: Container) -> NotifySocket | None:
    """Return the socket for the program's states; None if the caller does not expect any."""
    if not posix.environ.get(b"NOTIFY_SOCKET"):
        return None
    import os

    from jaula.oci import notify_socket

    address = notify_socket.host_address(os.environ)
    return notify_socket.open_socket(container, address, args.log.warning)


def start_init(container: Container, record: Record) -> None:
    """Tell init to continue; return when the program runs.

    :raises RuntimeFailure: with init's error, when a startContainer hook or the program failed.
    """
    init_sock = container.connect()
    if init_sock is None:
        raise RuntimeFailure(f"container {container.id}: its init is not waiting to be started")
    try:
        init_sock.send(START)
        posix.unlink(SOCKET, dir_fd=container.fd)
        message = init_sock.recv(1 << 16)
        if message == HOOKS_DONE:
            message = init_sock.recv(1 << 16)
        elif not message and _has_start_hooks(container.read(CONFIG)):
            raise RuntimeFailure(
                f"container {container.id}: its init was killed while startContainer hooks ran"
            )
        if not message and not executed(record):
            raise RuntimeFailure(_not_executed(container))
    finally:
        init_sock.close()
    if message[:1] == b"E":
        from jaula.runtime.init.init_sync import decode_failure

        raise decode_failure(message[1:])


def _not_executed(container: Container) -> str:
    """Return why an init that sent no error did not execute the program."""
    if _SECCOMP in container.read(CONFIG):
        from jaula.runtime.init.init_sync import KILLED_BY_FILTER

        return KILLED_BY_FILTER
    return f"container {container.id}: its init was killed before the program began"


def _has_start_hooks(config: bytes) -> bool:
    """Return whether init runs hooks before the program, and reports when they have run."""
    if _START_HOOKS not in config:
        return False
    from jaula.spec import runtime_spec

    hooks = runtime_spec.decode(config).hooks
    return hooks is not None and bool(hooks.start_container)


def verify_labels(container: Container, record: Record) -> None:
    """Verify that the program runs under the labels of its spec; kill it otherwise.

    :raises RuntimeFailure: when it does not.
    """
    config = container.read(CONFIG)
    if not any(key in config for key in _LABELS):
        return
    import os

    from jaula.oci.commands import oci_delete
    from jaula.runtime.init import process_labels
    from jaula.spec import runtime_spec

    process = runtime_spec.decode(config).process
    if process is None:
        return
    label_request = process_labels.LabelRequest(
        os.fsencode(process.apparmor_profile) if process.apparmor_profile else None,
        os.fsencode(process.selinux_label) if process.selinux_label else None,
    )
    try:
        process_labels.check(record.pid, label_request)
    except JaulaError:
        oci_delete.kill(record)
        raise


def run_poststart(args: CommandArgs, container: Container, record: Record) -> None:
    """Run the poststart hooks; one that fails removes the container (runtime.md "Lifecycle").

    :raises RuntimeFailure: when a hook failed.
    """
    config = container.read(CONFIG)
    if _POSTSTART not in config:
        return
    from jaula.oci.commands import oci_delete
    from jaula.runtime.init import oci_hooks
    from jaula.spec import runtime_spec

    spec = runtime_spec.decode(config)
    if spec.hooks is None:
        return
    for hook in spec.hooks.poststart:
        args.log.step(f"hook {hook.path} is due")
    try:
        oci_hooks.run("poststart", spec.hooks.poststart, record.state("running"))
    except JaulaError:
        oci_delete.kill(record)
        container.lock()
        oci_delete.remove(args, container, record)
        raise
