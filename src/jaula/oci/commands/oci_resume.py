"""``resume``: resume all processes of a paused container."""

from __future__ import annotations

from jaula.errors import Conflict
from jaula.oci import runtime_services
from jaula.oci.args import CommandArgs
from jaula.oci.runtime_container import Container

FLAGS: dict[str, str] = {}
USAGE = "CONTAINER-ID"


def run(args: CommandArgs) -> int:
    """Thaw the cgroup."""
    with Container.open(args.settings.root, args.container_id()) as container:
        container.lock(wait_for_create=False)
        record = container.record()
        status = container.status(record)
        if status != "paused":
            raise Conflict(f"cannot resume container {container.id}: it is {status}, not paused")
        with runtime_services.cgroup_of(record) as cgroup:
            args.log.step(f"thaw cgroup {record.cgroup}")
            cgroup.thaw()
    return 0
