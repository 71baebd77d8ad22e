"""``state``: print the state of a container as JSON."""

from __future__ import annotations

import posix

from jaula.oci.args import CommandArgs
from jaula.oci.runtime_container import Container
from jaula.spec import fast_json

FLAGS: dict[str, str] = {}
USAGE = "CONTAINER-ID"


def run(args: CommandArgs) -> int:
    """Print the OCI state, with runc's additions."""
    with Container.open(args.settings.root, args.container_id()) as container:
        record = container.record()
        status = container.status(record)
    document = {**record.document(status), "owner": ""}
    posix.write(1, f"{fast_json.pretty(document, '  ')}\n".encode("utf-8", "surrogateescape"))
    return 0
