"""Restart policies: whether and when an exited container is restarted. Pure.

Source: Docker's ``restartmanager``. The first delay is 100 ms, and each further one is twice as
long, up to a minute. A run of ten seconds or more resets the delay.
"""

from __future__ import annotations

from jaula.errors import InvalidRequest
from jaula.spec.api_documents import RestartPolicy

FIRST_DELAY = 0.1  # seconds
LONGEST_DELAY = 60.0  # seconds
GOOD_RUN = 10.0  # seconds after which the delay is reset


def check(policy: RestartPolicy, *, auto_remove: bool) -> None:
    """Check a restart policy.

    :raises InvalidRequest: when it is unknown, or contradicts ``--rm``.
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
    """Return whether an exited container is to be restarted.

    ``count`` is the number of restarts so far. ``stopped``: a client stopped the container.
    ``engine_start``: the engine has just started and the container had exited.
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
    """Return the seconds to wait before the next start."""
    if previous == 0 or ran_for >= GOOD_RUN:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)
