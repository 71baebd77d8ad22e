"""The profile of a record, derived in a sandboxed process.

The engine runs it for a client that sends a record
(:mod:`jaula.features.verify.diagnostics.commands`).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from jaula.errors import InvalidRequest
from jaula.features.harden import derive, profile_toml
from jaula.features.record import record_reader


def profile(
    payload: bytes, descriptors: list[int], ask: Callable[[bytes], tuple[bytes, list[int]]]
) -> bytes:
    """Return the profile of the record in a file, as TOML.

    :raises InvalidRequest: when it is not an intact record.
    """
    with open(os.dup(descriptors[0]), "rb") as file:
        record = record_reader.read_file(file, "the record")
    if record.errors or record.header is None:
        raise InvalidRequest(
            f"it is not an intact record: {(record.errors or ['no header'])[0]}",
            hint="jaula record verify FILE lists what is wrong",
        )
    return profile_toml.dumps(derive.derive([record], record.header.container.name)).encode()
