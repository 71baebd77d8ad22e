"""``run``: create a container, start it and, unless detached, stay until it ends."""

from __future__ import annotations

from jaula.errors import JaulaError
from jaula.oci.args import SWITCH, CommandArgs
from jaula.oci.commands import delete
from jaula.oci.commands.create import FLAGS as CREATE_FLAGS
from jaula.oci.commands.create import make
from jaula.oci.commands.start import poststart
from jaula.oci.container import Container

FLAGS = {
    **CREATE_FLAGS,
    "detach": SWITCH,
    "d": "detach",
    "keep": SWITCH,
    "no-subreaper": SWITCH,
}
USAGE = "[flags] CONTAINER-ID"


def run(call: CommandArgs) -> int:
    """The program's exit status, or 0 when detached."""
    container_id = call.container_id()
    detach = call.options.on("detach")
    keeps_terminal = not detach and not call.options.get("console-socket")
    if not detach:
        from jaula.oci import foreground

        foreground.hold_signals()
    made = make(call, container_id, waits=False, foreground=keeps_terminal)
    with Container.find(call.settings.root, container_id) as container:
        try:
            poststart(call, container, made.record)
        except JaulaError:
            container.lock()
            delete.remove(call, container, made.record)
            raise
    if detach:
        return 0
    code = foreground.stay(made.born.pid, made.born.master if keeps_terminal else -1)
    if not call.options.on("keep"):
        with Container.find(call.settings.root, container_id) as container:
            container.lock()
            delete.remove(call, container, made.record)
    return code
