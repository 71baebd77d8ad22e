"""``run``: create and start a container; wait for its exit unless detached."""

from __future__ import annotations

import os

from jaula.oci.args import SWITCH, CommandArgs
from jaula.oci.commands import oci_delete
from jaula.oci.commands.oci_create import FLAGS as CREATE_FLAGS
from jaula.oci.commands.oci_create import create_container
from jaula.oci.commands.oci_start import run_poststart
from jaula.oci.runtime_container import Container

FLAGS = {
    **CREATE_FLAGS,
    "detach": SWITCH,
    "d": "detach",
    "keep": SWITCH,
    "no-subreaper": SWITCH,
}
USAGE = "[flags] CONTAINER-ID"


def run(args: CommandArgs) -> int:
    """Run a container; return the program's exit status, or 0 with ``--detach``."""
    container_id = args.container_id()
    detach = args.options.on("detach")
    relay_terminal = not detach and not args.options.get("console-socket")
    if not detach:
        from jaula.oci import foreground

        foreground.block_signals()
    created = create_container(args, container_id, wait_for_start=False, foreground=relay_terminal)
    with Container.open(args.settings.root, container_id) as container:
        run_poststart(args, container, created.record)
    pid, notify = created.handle.pid, created.notify
    if detach:
        if notify is not None:
            pidfd = os.pidfd_open(pid)  # a child of ours, which is not reaped
            notify.wait_for_ready(pid, pidfd)
        return 0
    code = foreground.wait_for_exit(pid, created.handle.master if relay_terminal else -1, notify)
    if not args.options.on("keep"):
        with Container.open(args.settings.root, container_id) as container:
            container.lock()
            oci_delete.remove(args, container, created.record)
    return code
