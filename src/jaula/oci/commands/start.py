"""``start``: let the program of a created container run."""

from __future__ import annotations

from jaula.errors import Conflict
from jaula.oci.args import CommandArgs
from jaula.oci.container import Container
from jaula.oci.start import check, poststart, release

FLAGS: dict[str, str] = {}
USAGE = "CONTAINER-ID"


def run(call: CommandArgs) -> int:
    """Start it; returns when its program runs."""
    with Container.find(call.settings.root, call.container_id()) as container:
        container.lock(unmade=False)
        record = container.record()
        status = container.status(record)
        if status == "stopped":
            raise Conflict("cannot start a container that has stopped")
        if status != "created":
            raise Conflict("cannot start an already running container")
        release(container)
        check(container, record)
        container.unlock()  # a hook may want to use the container
        poststart(call, container, record)
    return 0
