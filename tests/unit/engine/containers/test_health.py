"""What follows from the results of probes."""

from __future__ import annotations

import os
import subprocess

import msgspec
import pytest

from jaula.engine.containers import exec_session, health
from jaula.engine.containers.health import Probe
from jaula.errors import InvalidRequest
from jaula.spec.api_documents import ContainerCreate, Healthcheck
from jaula.spec.image_documents import Healthcheck as ImageHealthcheck
from jaula.state.container_records import HealthRecord, HealthResult, HealthStatus

S = 1_000_000_000
STARTING, HEALTHY, UNHEALTHY = HealthStatus.STARTING, HealthStatus.HEALTHY, HealthStatus.UNHEALTHY


def results(probe: Probe, *codes: int, spacing: int = 1) -> list[tuple[HealthStatus, int]]:
    record = HealthRecord()
    found = []
    for number, code in enumerate(codes):
        start = number * spacing * S
        record = health.next_record(record, HealthResult(start, start, code), probe, 0)
        found.append((record.status, record.failing_streak))
    return found


def test_failures_in_a_row_make_it_unhealthy_and_one_success_healthy() -> None:
    assert results(Probe(("x",), retries=3), 1, 1, 1, 1, 0, 1) == [
        (STARTING, 1),
        (STARTING, 2),
        (UNHEALTHY, 3),
        (UNHEALTHY, 4),
        (HEALTHY, 0),
        (HEALTHY, 1),
    ]


def test_failures_in_the_start_period_do_not_count_before_the_first_success() -> None:
    probe = Probe(("x",), retries=1, start_period=3 * S)
    assert results(probe, 1, 1, 1, 1) == [(STARTING, 0)] * 3 + [(UNHEALTHY, 1)]
    assert results(probe, 0, 1) == [(HEALTHY, 0), (UNHEALTHY, 1)]


def test_the_newest_results_are_kept() -> None:
    record = HealthRecord()
    for number in range(12):
        result = HealthResult(number, number, 0, str(number))
        record = health.next_record(record, result, Probe(("x",)), 0)
    assert [result.output for result in record.log] == ["7", "8", "9", "10", "11"]


def test_the_start_interval_applies_during_the_start_period() -> None:
    probe = Probe(("x",), interval=30 * S, start_interval=S, start_period=10 * S)
    assert probe.pause(STARTING, 2 * S) == S
    assert probe.pause(STARTING, 11 * S) == 30 * S
    assert probe.pause(HEALTHY, 2 * S) == 30 * S


@pytest.mark.parametrize(
    ("asked", "image", "expected"),
    [
        (None, None, None),
        (None, ImageHealthcheck(test=("CMD", "a"), retries=9), (("CMD", "a"), 0, 9)),
        (Healthcheck(interval=S), ImageHealthcheck(test=("CMD", "a")), (("CMD", "a"), S, 0)),
        (Healthcheck(test=("NONE",)), ImageHealthcheck(test=("CMD", "a")), (("NONE",), 0, 0)),
        (Healthcheck(test=("CMD", "b")), None, (("CMD", "b"), 0, 0)),
    ],
)
def test_the_request_goes_before_the_image(
    asked: Healthcheck | None, image: ImageHealthcheck | None, expected: object
) -> None:
    found = health.merge_image_healthcheck(asked, image)
    assert (found and (found.test, found.interval, found.retries)) == expected


def test_the_command_is_run_by_the_images_shell_where_it_is_a_line() -> None:
    def command(*test: str, shell: tuple[str, ...] = ()) -> tuple[str, ...] | None:
        body = ContainerCreate(healthcheck=Healthcheck(test=test), shell=shell)
        found = health.probe_of(body)
        return found and found.command

    assert command("CMD-SHELL", "a b") == ("/bin/sh", "-c", "a b")
    assert command("CMD-SHELL", "a b", shell=("/bin/bash", "-lc")) == ("/bin/bash", "-lc", "a b")
    assert command("CMD", "a", "b") == ("a", "b")
    assert command("NONE") is None
    assert command() is None


@pytest.mark.parametrize(
    "requested",
    [
        Healthcheck(test=("CMD", "x"), interval=1),
        Healthcheck(test=("CMD", "x"), timeout=-S),
        Healthcheck(test=("CMD", "x"), retries=-1),
        Healthcheck(test=("RUN", "x")),
        Healthcheck(test=("CMD",)),
    ],
)
def test_an_invalid_healthcheck_is_refused(requested: Healthcheck) -> None:
    with pytest.raises(InvalidRequest):
        health.check(requested)


def test_output_is_truncated_at_the_limit() -> None:
    assert health.truncate_output(b"x" * 4096) == "x" * 4096
    assert health.truncate_output(b"x" * 4097) == "x" * 4096 + "..."
    assert health.truncate_output(b"\xff") == "\ufffd"


def test_a_record_of_health_survives_the_database() -> None:
    record = HealthRecord(UNHEALTHY, 4, (HealthResult(1, 2, -1, "late"),))
    data = msgspec.json.encode(record)
    assert msgspec.json.decode(data, type=HealthRecord) == record


def test_a_session_is_read_whatever_the_programs_name_is() -> None:
    assert exec_session.session_of(b"12 (a) b) (c) S 1 12 77 0 -1 4194304") == 77


def test_killing_a_session_kills_its_children() -> None:
    script = "sleep 300 & sleep 300 & echo on; wait"
    leader = subprocess.Popen(["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        assert leader.stdout is not None
        leader.stdout.readline()

        def pids() -> list[int]:
            return [int(name) for name in os.listdir("/proc") if name.isdigit()]

        assert len(exec_session.members(leader.pid, pids())) == 3
        assert exec_session.kill_session(leader.pid, pids) >= 3
        leader.wait(5)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        leader.stdout.close() if leader.stdout else None
