"""``jaula verify``: the isolation that was asked for, held against the kernel's own evidence.

Follows design statements I5 to I10 and I19. Each check is a file in :mod:`jaula.audit.checks`; a
check that cannot read its evidence gives a row with the verdict ``unknown``, which is not a proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from jaula.audit.checks import TABLE
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.host_snapshot import HostSnapshot
from jaula.audit.model.result import Result, Verdict, passed, plain, table
from jaula.errors import Conflict, JaulaError
from jaula.spec.runtime import Spec

__all__ = ["Result", "Verdict", "passed", "render", "verify"]


def verify(
    inspect: Mapping[str, Any],
    spec: Spec,
    proc_root: str = "/proc",
    snapshot: HostSnapshot | None = None,
) -> list[Result]:
    """Every row of the proof of a running container.

    ``inspect`` is the engine's inspect document and ``spec`` what the runtime was given; see
    :mod:`jaula.audit.model.container` for what is used of them. ``readings`` are shared by the containers
    of one report. Raises ``Conflict`` where the container does not run or ends while it is being
    looked at.
    """
    container = AuditedContainer(inspect, spec, proc_root, snapshot)
    found: list[Result] = []
    try:
        started = container.started()
        for info, check in TABLE:
            found += run_check(info.id, info.layer, partial(check, container))
        if container.started() != started:
            raise Conflict("the container ended while it was being verified")
    finally:
        container.close()
    return found


def run_check(name: str, layer: str, rows: Callable[[], Iterable[Result]]) -> Iterable[Result]:
    """The rows of one check, which may fail to read its evidence: then one that says so."""
    try:
        for row in rows():
            yield msgspec.structs.replace(row, check=name)
    except (OSError, ValueError, KeyError, JaulaError) as error:
        yield Result(name, layer, "", f"cannot be read: {error}", "", Verdict.UNKNOWN, name)


def render(rows: Sequence[Result]) -> str:
    """A table, and a line that sums it up."""
    text = table(
        ("LAYER", "CHECK", "REQUESTED", "IN EFFECT", "EVIDENCE", "VERDICT"),
        [(r.layer, r.id, r.requested, r.effective, r.evidence, str(r.verdict)) for r in rows],
        widest=48,
    )
    counts = {v: sum(row.verdict is v for row in rows) for v in Verdict}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    details = [
        plain(f"{row.id}: asked for {row.requested or 'nothing'}; in effect: {row.effective}")
        for row in rows
        if row.verdict in (Verdict.FAILS, Verdict.UNKNOWN)
    ]
    return "\n".join((text, "", f"{len(rows)} rows: {summary}", *details))
