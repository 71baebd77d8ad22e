"""no_new_privs: set-user-id programs gain no privileges, if requested.

Evidence: NoNewPrivs in /proc/<pid>/status (prctl(2), PR_SET_NO_NEW_PRIVS). It cannot be unset, so a
program may have set it without a request.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, verdict_of

INFO = CheckInfo(
    id="privileges",
    layer="no_new_privs",
    title="No new privileges",
    reason=("Otherwise a set-user-id program in the container can give a process more privileges."),
    references=("I9", "CIS 5.26", "prctl(2) PR_SET_NO_NEW_PRIVS"),
    evidence="/proc/<pid>/status NoNewPrivs",
    advice="start it with --security-opt no-new-privileges",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row."""
    options = container.security_option("no-new-privileges")
    requested = bool(options) and options[-1].lower() in ("", "true", "1", "t")
    actual = container.status("NoNewPrivs")
    holds = not requested or (actual == "1" and container.process.no_new_privileges)
    yield Result(
        "no_new_privs", "no_new_privs", "set" if requested else "not requested",
        "set" if actual == "1" else "not set", f"{container.path('status')} NoNewPrivs",
        verdict_of(holds, None),
    )  # fmt: skip
