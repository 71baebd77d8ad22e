"""Health of containers: what a probe says, and what follows from it.

Follows the Dockerfile reference, ``HEALTHCHECK``, and the Docker Engine API 1.45, ``Health``: a
probe is run one interval after the start, and again one interval after the former one has ended. It
counts as failed when its status is not 0 or its time is over. While a container starts, failures do
not count during the start period, in which another interval applies.

What follows from a result is decided by :func:`after`, without a clock or a process.
"""

from __future__ import annotations

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec.api import ContainerCreate, Healthcheck
from jaula.spec.image import Healthcheck as ImageHealthcheck
from jaula.spec.units import go_duration
from jaula.state.records import HealthRecord, HealthResult, HealthStatus

ON_FAILURE_LABEL = "io.jaula.health-on-failure"
"""A label that says what follows when a container is unhealthy; Docker has nothing of the kind."""
_REACTIONS = ("none", "restart")

LOG_LENGTH = 5  # results that are kept
OUTPUT_LENGTH = 4096  # bytes of output that are kept of each
_MILLISECOND = 1_000_000
_SECOND = 1_000_000_000
_SHELL = ("/bin/sh", "-c")


class Probe(msgspec.Struct, frozen=True):
    """What is run, and when; times are in nanoseconds."""

    command: tuple[str, ...]
    interval: int = 30 * _SECOND
    timeout: int = 30 * _SECOND
    start_period: int = 0
    start_interval: int = 5 * _SECOND
    retries: int = 3

    def pause(self, status: HealthStatus, age: int) -> int:
        """Nanoseconds to the next probe of a container that started ``age`` nanoseconds ago."""
        starting = status is HealthStatus.STARTING and age < self.start_period
        return self.start_interval if starting else self.interval


def merge_image_healthcheck(
    asked: Healthcheck | None, image: ImageHealthcheck | None
) -> Healthcheck | None:
    """The request's check, with the image's values where it has none."""
    if image is None:
        return asked
    theirs = Healthcheck(**msgspec.structs.asdict(image))
    if asked is None:
        return theirs
    names = Healthcheck.__struct_fields__
    return Healthcheck(**{name: getattr(asked, name) or getattr(theirs, name) for name in names})


def check(wanted: Healthcheck | None) -> None:
    """Refuse what cannot be meant. Raises :class:`InvalidRequest`."""
    if wanted is None:
        return
    for name, value in (
        ("Interval", wanted.interval),
        ("Timeout", wanted.timeout),
        ("StartPeriod", wanted.start_period),
        ("StartInterval", wanted.start_interval),
    ):
        if value and value < _MILLISECOND:
            raise InvalidRequest(f"{name} in Healthcheck cannot be less than 1ms")
    if wanted.retries < 0:
        raise InvalidRequest("Retries in Healthcheck cannot be negative")
    kind = wanted.test[:1]
    if kind not in ((), ("NONE",), ("CMD",), ("CMD-SHELL",)):
        raise InvalidRequest(
            f"Unknown healthcheck type {kind[0]!r} (expected 'CMD')",
            hint="Test begins with NONE, CMD or CMD-SHELL",
        )
    if kind in (("CMD",), ("CMD-SHELL",)) and len(wanted.test) < 2:
        raise InvalidRequest("a health check needs a command")


def check_on_failure(body: ContainerCreate) -> tuple[str, ...]:
    """Refuse a value of :data:`REACTION` that is none; warnings. Raises ``InvalidRequest``."""
    asked = body.labels.get(ON_FAILURE_LABEL)
    if asked is None:
        return ()
    if asked not in _REACTIONS:
        raise InvalidRequest(
            f"invalid label {ON_FAILURE_LABEL}={asked!r}", hint=f"one of {', '.join(_REACTIONS)}"
        )
    if not restarts_when_unhealthy(body):
        return ()
    if body.host_config.auto_remove:
        raise InvalidRequest(f"can't create 'AutoRemove' container with {ON_FAILURE_LABEL}={asked}")
    if probe_of(body) is None:
        return (f"The container has no health check, so {ON_FAILURE_LABEL}={asked} has no effect",)
    return ()


def restarts_when_unhealthy(body: ContainerCreate) -> bool:
    """Whether the container is to be started again when it is unhealthy."""
    return body.labels.get(ON_FAILURE_LABEL) == "restart"


def probe_of(body: ContainerCreate) -> Probe | None:
    """The probe of a container; None where it has none."""
    wanted = body.healthcheck
    if wanted is None or wanted.test[:1] in ((), ("NONE",)):
        return None
    command = wanted.test[1:]
    if wanted.test[0] == "CMD-SHELL":
        command = (*(body.shell or _SHELL), *command)
    base = Probe(command)
    return Probe(
        command,
        wanted.interval or base.interval,
        wanted.timeout or base.timeout,
        wanted.start_period,
        wanted.start_interval or base.start_interval,
        wanted.retries or base.retries,
    )


def record_at_start(former: HealthRecord | None) -> HealthRecord:
    """At a start: nothing is known, and the results of the former run are still shown."""
    return HealthRecord(log=former.log if former else ())


def record_at_exit(former: HealthRecord | None) -> HealthRecord | None:
    """At the end of the container's first process: it serves nobody any more."""
    if former is None:
        return None
    return msgspec.structs.replace(former, status=HealthStatus.UNHEALTHY)


def next_record(
    former: HealthRecord, result: HealthResult, probe: Probe, started_at: int
) -> HealthRecord:
    """The state that follows from a result; ``started_at`` in nanoseconds since the epoch."""
    log = (*former.log, result)[-LOG_LENGTH:]
    if result.exit_code == 0:
        return HealthRecord(HealthStatus.HEALTHY, 0, log)
    young = result.start - started_at < probe.start_period
    if former.status is HealthStatus.STARTING and young:
        return HealthRecord(former.status, former.failing_streak, log)
    streak = former.failing_streak + 1
    status = HealthStatus.UNHEALTHY if streak >= probe.retries else former.status
    return HealthRecord(status, streak, log)


def truncate_output(data: bytes) -> str:
    """What a probe wrote, cut where there is more than is kept."""
    text = data[:OUTPUT_LENGTH].decode("utf-8", "replace")
    return text + "..." if len(data) > OUTPUT_LENGTH else text


def timeout_message(probe: Probe, output: str) -> str:
    """What is told of a probe that was killed when its time was over."""
    said = f"Health check exceeded timeout ({go_duration(probe.timeout)})"
    return f"{said}: {output}" if output else said
