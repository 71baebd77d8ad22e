"""``delete``: remove a container that has stopped, or with ``--force`` whatever it does."""

from __future__ import annotations

from jaula.errors import Conflict, CorruptState, NotFound
from jaula.oci import delete
from jaula.oci.args import SWITCH, CommandArgs
from jaula.oci.container import Container, Record

FLAGS = {"force": SWITCH, "f": "force"}
USAGE = "[--force] CONTAINER-ID"


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
                delete.kill(_known(call, container))
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
    delete.kill(record)
    delete.remove(call, container, record)
