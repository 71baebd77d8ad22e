"""``state``: what a container is and does, as JSON on standard output."""

from __future__ import annotations

import os

from jaula.oci.args import CommandArgs
from jaula.oci.container import Container
from jaula.spec import fast_json

FLAGS: dict[str, str] = {}
USAGE = "CONTAINER-ID"


def run(call: CommandArgs) -> int:
    """Print the OCI state, and what runc adds to it."""
    with Container.find(call.settings.root, call.container_id()) as container:
        record = container.record()
        status = container.status(record)
    document = {**record.document(status), "owner": ""}
    os.write(1, f"{fast_json.pretty(document, '  ')}\n".encode("utf-8", "surrogateescape"))
    return 0
