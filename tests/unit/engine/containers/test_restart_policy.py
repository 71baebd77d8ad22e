"""Restart policies."""

from __future__ import annotations

import pytest

from jaula.engine.containers import restart_policy
from jaula.errors import InvalidRequest
from jaula.spec.api_documents import RestartPolicy


@pytest.mark.parametrize(
    ("name", "limit", "code", "count", "stopped", "engine", "expected"),
    [
        ("", 0, 1, 0, False, False, False),
        ("no", 0, 1, 0, False, True, False),
        ("always", 0, 0, 99, False, False, True),
        ("always", 0, 0, 0, True, False, False),
        ("always", 0, 0, 0, True, True, True),
        ("unless-stopped", 0, 0, 0, False, True, True),
        ("unless-stopped", 0, 0, 0, True, True, False),
        ("on-failure", 0, 0, 0, False, False, False),
        ("on-failure", 0, 1, 50, False, False, True),
        ("on-failure", 3, 1, 2, False, False, True),
        ("on-failure", 3, 1, 3, False, False, False),
        ("on-failure", 3, 1, 0, True, False, False),
    ],
)
def test_a_policy_says_whether_it_starts_again(
    name: str, limit: int, code: int, count: int, stopped: bool, engine: bool, expected: bool
) -> None:
    chosen = RestartPolicy(name=name, maximum_retry_count=limit)
    assert (
        restart_policy.should_restart(
            chosen, exit_code=code, count=count, stopped=stopped, engine_start=engine
        )
        is expected
    )


def test_pauses_double_up_to_a_minute_and_begin_anew_after_a_good_run() -> None:
    pauses, last = [], 0.0
    for _ in range(12):
        last = restart_policy.delay(last, 0.1)
        pauses.append(last)
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == 60
    assert restart_policy.delay(60, 10) == 0.1


@pytest.mark.parametrize(
    ("chosen", "auto_remove"),
    [
        (RestartPolicy(name="sometimes"), False),
        (RestartPolicy(name="always", maximum_retry_count=2), False),
        (RestartPolicy(name="on-failure", maximum_retry_count=-1), False),
        (RestartPolicy(name="always"), True),
    ],
)
def test_a_policy_that_cannot_be_is_refused(chosen: RestartPolicy, auto_remove: bool) -> None:
    with pytest.raises(InvalidRequest):
        restart_policy.check(chosen, auto_remove=auto_remove)
