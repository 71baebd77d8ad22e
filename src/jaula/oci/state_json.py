"""The document that hooks and seccomp agents read, runtime.md "State", of a container kept here."""

from __future__ import annotations

from jaula.oci.container import Record
from jaula.spec.runtime import State


def state_of(record: Record, status: str) -> State:
    """The state with ``status``, as the record knows the rest."""
    return State(
        record.id, status, record.bundle, record.pid, record.annotations, record.oci_version
    )
