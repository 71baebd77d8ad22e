"""Seals of request and spec: the documents that the report compares with are the engine's own.

Evidence: the lines of the audit log, read from its files, and their chain of hashes up to the head.
The engine gives the seal of the request that it has in its database; the spec is read from
``config.json``, and its seal was written before the runtime received it. A container that was
created or started by an engine without seals, or whose line was removed with the oldest files, is
relaxed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, verdict_of
from jaula.features.verify.model.seals import Seals

INFO = CheckInfo(
    id="seal",
    layer="profile",
    title="Seals of request and spec",
    reason="A report that compares the kernel with a request or a spec that was changed afterwards "
    "proves nothing.",
    references=("I16",),
    evidence="the audit log's files, the seal that the engine computes of its record, config.json",
    advice="recreate the container; find who wrote to the engine's database or directories",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for the request and one for the spec; none if the audit log is not readable.

    A container of another version of the engine has a row on the rules of its start.
    """
    if container.starter is not None:
        by = f"started by jaula {container.starter}"
        yield Result(
            "rules", "profile", f"those of its start ({by})", "the defaults are in its spec",
            "config.json", verdict_of(True, by),
        )  # fmt: skip
    root = container.state_directory
    if root is None or not os.path.isdir(root):
        return
    try:
        seals = container.snapshot.seals(root)
    except PermissionError:
        return
    if actual := str(container.inspect.get("RequestSeal") or ""):
        sealed = seals.requests.get(container.container_id, "")
        what = "the record was changed without the engine"
        yield _row("request seal", sealed, actual, what, f"{root}/audit", seals)
    path = f"{root}/containers/{container.container_id}/config.json"
    sealed = seals.specs.get(container.container_id, "")
    what = "config.json was changed without the engine"
    yield _row("spec seal", sealed, _hash(path), what, f"{path}, {root}/audit", seals)


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "absent"


def _row(name: str, sealed: str, actual: str, changed: str, evidence: str, seals: Seals) -> Result:
    by = None if sealed else "no line of the audit log has a seal"
    effective = actual[:12]
    if seals.error:
        effective += f"; the audit log is damaged: {seals.error}"
    elif sealed not in ("", actual):
        effective += f"; {changed}"
    return Result(
        name, "profile", sealed[:12] if sealed else f"none ({by})", effective, evidence,
        verdict_of(not seals.error and sealed in ("", actual), by),
    )  # fmt: skip
