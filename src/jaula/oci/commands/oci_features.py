"""``features``: print the features of this runtime as JSON."""

from __future__ import annotations

import os

from jaula.errors import InvalidRequest
from jaula.oci.args import CommandArgs
from jaula.oci.runtime_features import features
from jaula.spec import fast_json

FLAGS: dict[str, str] = {}
USAGE = ""


def run(args: CommandArgs) -> int:
    """Print the document of features.md."""
    if args.arguments:
        raise InvalidRequest(f'"features" takes no argument, {len(args.arguments)} given')
    os.write(1, f"{fast_json.pretty(features())}\n".encode())
    return 0
