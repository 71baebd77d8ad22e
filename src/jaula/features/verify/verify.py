"""``jaula verify``: compare the requested isolation with the kernel's state.

Implements design statements I5 to I10 and I19. Each check is a file in
:mod:`jaula.features.verify.checks`. A check that cannot read its evidence returns a row with the
verdict ``unknown``, so the report is not a proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from jaula.errors import Conflict, JaulaError
from jaula.features.verify.checks import TABLE
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.host_snapshot import HostSnapshot
from jaula.features.verify.model.result import Result, Verdict, passed, plain, table
from jaula.spec.runtime_spec import Spec

__all__ = ["Result", "Verdict", "passed", "render", "verify"]


def verify(
    inspect: Mapping[str, Any],
    spec: Spec,
    proc_root: str = "/proc",
    snapshot: HostSnapshot | None = None,
    execs: Sequence[Mapping[str, Any]] = (),
    others: Sequence[AuditedContainer] = (),
) -> list[Result]:
    """Return every row of the report on a running container.

    ``inspect`` is the engine's inspect document and ``spec`` the spec that the runtime received;
    :mod:`jaula.features.verify.model.container` lists what is used of them. ``execs`` are the
    documents of its exec sessions. ``snapshot`` is shared by the containers of one report.
    ``others`` are the other running containers of its pod.

    :raises Conflict: when the container is not running, or exits during verification.
    """
    container = AuditedContainer(inspect, spec, proc_root, snapshot, execs, others)
    rows: list[Result] = []
    try:
        started = container.started()
        for info, check in TABLE:
            rows += run_check(info.id, info.layer, partial(check, container))
        if container.started() != started:
            raise Conflict("the container exited during verification")
    finally:
        container.close()
    return rows


def run_check(name: str, layer: str, rows: Callable[[], Iterable[Result]]) -> Iterable[Result]:
    """Return the rows of one check; if its evidence cannot be read, a row with the error."""
    try:
        for row in rows():
            yield msgspec.structs.replace(row, check=name)
    except (OSError, ValueError, KeyError, JaulaError) as error:
        yield Result(name, layer, "", f"cannot be read: {error}", "", Verdict.UNKNOWN, name)


def render(rows: Sequence[Result]) -> str:
    """Return a table and a summary."""
    text = table(
        ("LAYER", "CHECK", "REQUESTED", "IN EFFECT", "EVIDENCE", "VERDICT"),
        [(r.layer, r.id, r.requested, r.effective, r.evidence, str(r.verdict)) for r in rows],
        widest=48,
    )
    counts = {v: sum(row.verdict is v for row in rows) for v in Verdict}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    details = [
        plain(f"{row.id}: requested: {row.requested or 'nothing'}; in effect: {row.effective}")
        for row in rows
        if row.verdict in (Verdict.FAILS, Verdict.UNKNOWN)
    ]
    return "\n".join((text, "", f"{len(rows)} rows: {summary}", *details))
