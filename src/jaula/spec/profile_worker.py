"""Read the profile of a document in a sandboxed process.

The engine runs it for a document of a client (:mod:`jaula.engine.containers.presets`).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec.msgpack

from jaula.spec.confinement_profile import load

load(b'version = 1\nname = "first"\n', "")  # imports parser and codec: no file is opened later


def parse(
    payload: bytes, descriptors: list[int], ask: Callable[[bytes], tuple[bytes, list[int]]]
) -> bytes:
    """Return the profile of a document in TOML, as MessagePack.

    :raises InvalidRequest: when it is too large, not TOML, or not a profile.
    """
    return msgspec.msgpack.encode(load(payload, "of the request"))
