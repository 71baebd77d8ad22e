"""The seals of a container's request and spec: hashes that only the audit log keeps.

The record in the database is what the engine reads at its start. The line of the audit log that
tells of the creation, or of an update, has the seal of the record at that moment. A record that was
changed by another program, also while no engine ran, has another seal.

The spec is what the runtime receives and what an exec reads. Each start writes it anew, and nothing
else does. The line with its seal is written before the runtime is asked. So each program that runs
has a line, also if the engine is killed at any moment of the start.
"""

from __future__ import annotations

from typing import Any

import msgspec

from jaula.sha256 import sha256
from jaula.state.container_records import ContainerRecord, stored

_SEALED = ("id", "image", "layers", "args", "mounts", "owner", "owner_gid", "beneath", "body",
           "engine_socket", "pod", "resolved_request", "cgroup")  # fmt: skip
"""Members of a record that only a creation or an update sets."""
_LINKS = ("links", "Links")


def request_seal(record: ContainerRecord) -> str:
    """Return the SHA-256 of a record's request, in hexadecimal.

    Members without a value are left out, so that a later engine with more members gives the same
    seal. It is that of the stored form, which older engines sealed. Legacy links are left out,
    since the removal of a link changes them. Of a sandbox the request counts, not what the plugins
    have reported. Pure.
    """
    written = stored(record)
    members = {name: msgspec.to_builtins(getattr(written, name)) for name in _SEALED}
    if record.sandbox is not None:
        members["sandbox"] = msgspec.to_builtins(record.sandbox.request)
    text = msgspec.json.encode(_without_defaults(members), order="deterministic")
    return sha256(text).hexdigest()


def spec_seal(document: bytes) -> str:
    """Return the SHA-256 of a spec as it is written, in hexadecimal. Pure."""
    return sha256(document).hexdigest()


def _without_defaults(node: Any) -> Any:
    """Return a document without members that have no value, or whose value has none. Pure.

    Most members of a request have no value, so they are left out before anything is copied.
    """
    if isinstance(node, dict):
        kept = {}
        for key, value in node.items():
            if not value or key in _LINKS:
                continue
            if isinstance(value, dict | list | tuple):
                value = _without_defaults(value)
                if not value:
                    continue
            kept[key] = value
        return kept
    if isinstance(node, list | tuple):
        return [_without_defaults(value) for value in node]
    return node
