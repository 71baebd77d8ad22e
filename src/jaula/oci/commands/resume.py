"""``resume``: let the processes of a paused container go on."""

from __future__ import annotations

from jaula.errors import Conflict
from jaula.oci import services
from jaula.oci.args import CommandArgs
from jaula.oci.container import Container

FLAGS: dict[str, str] = {}
USAGE = "CONTAINER-ID"


def run(call: CommandArgs) -> int:
    """Thaw its cgroup."""
    with Container.find(call.settings.root, call.container_id()) as container:
        container.lock(unmade=False)
        record = container.record()
        status = container.status(record)
        if status != "paused":
            raise Conflict(f"cannot resume container {container.id}: it is {status}, not paused")
        with services.cgroup_of(record) as cgroup:
            cgroup.thaw()
    return 0
