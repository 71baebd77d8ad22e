"""``pause``: suspend all processes of a container."""

from __future__ import annotations

from jaula.errors import Conflict
from jaula.oci import runtime_services
from jaula.oci.args import CommandArgs
from jaula.oci.runtime_container import Container

FLAGS: dict[str, str] = {}
USAGE = "CONTAINER-ID"


def run(args: CommandArgs) -> int:
    """Freeze the cgroup; return when every process has stopped."""
    with Container.open(args.settings.root, args.container_id()) as container:
        container.lock(wait_for_create=False)
        record = container.record()
        status = container.status(record)
        if status not in ("running", "created"):
            raise Conflict(f"cannot pause container {container.id}: it is {status}")
        with runtime_services.cgroup_of(record) as cgroup:
            args.log.step(f"freeze cgroup {record.cgroup}")
            cgroup.freeze()
    return 0
