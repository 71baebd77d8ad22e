"""``create``: a container whose init waits to be started."""

from __future__ import annotations

from jaula.oci.args import CommandArgs
from jaula.oci.create import FLAGS, make

USAGE = "[flags] CONTAINER-ID"


def run(call: CommandArgs) -> int:
    """Create it; the caller becomes the parent of its init once this command has ended."""
    make(call, call.container_id(), waits=True)
    return 0


__all__ = ["FLAGS", "USAGE", "run"]
