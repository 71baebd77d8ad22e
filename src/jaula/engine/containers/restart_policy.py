"""Restart policies: whether and when an ended container starts again. Pure.

Source: Docker's ``restartmanager``: the first pause is 100 ms, each further one twice as long up
to a minute; a run of ten seconds or more begins anew.
"""

from __future__ import annotations

from jaula.errors import InvalidRequest
from jaula.spec.api import RestartPolicy

FIRST_DELAY = 0.1  # seconds
LONGEST_DELAY = 60.0
GOOD_RUN = 10.0


def check(policy: RestartPolicy, *, auto_remove: bool) -> None:
    """Refuse a policy that does not exist.

    :raises InvalidRequest: unknown, or it contradicts ``--rm``.
    """
    if policy.name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidRequest(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always',"
            " 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidRequest(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidRequest("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidRequest("can't create 'AutoRemove' container with restart policy")


def should_restart(
    policy: RestartPolicy, *, exit_code: int, count: int, stopped: bool, engine_start: bool = False
) -> bool:
    """Whether an ended container is to start again.

    ``count`` is how often it was started again already; ``stopped`` that a person stopped it.
    ``engine_start``: the engine has come up and found it ended.
    """
    match policy.name:
        case "always":
            return engine_start or not stopped
        case "unless-stopped":
            return not stopped
        case "on-failure":
            limit = policy.maximum_retry_count
            return exit_code != 0 and not stopped and (limit == 0 or count < limit)
    return False


def delay(previous: float, ran_for: float) -> float:
    """Seconds to wait before the next start."""
    if previous == 0 or ran_for >= GOOD_RUN:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)
