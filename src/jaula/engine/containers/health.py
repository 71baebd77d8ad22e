"""Health checks of containers: the probe, and the state that follows from its results.

Follows the Dockerfile reference, ``HEALTHCHECK``, and the Docker Engine API 1.45, ``Health``. A
probe runs one interval after the start, and again one interval after the previous one has ended. It
fails when its exit status is not 0 or when it exceeds its timeout. During the start period failures
of a starting container do not count, and another interval applies.

:func:`next_record` computes the next state, without a clock or a process.
"""

from __future__ import annotations

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec.api_documents import ContainerCreate, Healthcheck
from jaula.spec.image_documents import Healthcheck as ImageHealthcheck
from jaula.spec.units import go_duration
from jaula.state.container_records import HealthRecord, HealthResult, HealthStatus

ON_FAILURE_LABEL = "io.jaula.health-on-failure"
"""Label with the action for an unhealthy container; Docker has no such setting."""
_ON_FAILURE_ACTIONS = ("none", "restart", "kill", "stop")

LOG_LENGTH = 5  # results in the record
OUTPUT_LENGTH = 4096  # bytes of output per result
_MILLISECOND = 1_000_000
_SECOND = 1_000_000_000
_SHELL = ("/bin/sh", "-c")


class Probe(msgspec.Struct, frozen=True):
    """A command and its schedule; times are in nanoseconds."""

    command: tuple[str, ...]
    interval: int = 30 * _SECOND
    timeout: int = 30 * _SECOND
    start_period: int = 0
    start_interval: int = 5 * _SECOND
    retries: int = 3

    def pause(self, status: HealthStatus, age: int) -> int:
        """Return the nanoseconds to the next probe, ``age`` nanoseconds after the start."""
        starting = status is HealthStatus.STARTING and age < self.start_period
        return self.start_interval if starting else self.interval


def merge_image_healthcheck(
    requested: Healthcheck | None, image: ImageHealthcheck | None
) -> Healthcheck | None:
    """Return the request's health check, completed with the image's values."""
    if image is None:
        return requested
    inherited = Healthcheck(**msgspec.structs.asdict(image))
    if requested is None:
        return inherited
    names = Healthcheck.__struct_fields__
    return Healthcheck(
        **{name: getattr(requested, name) or getattr(inherited, name) for name in names}
    )


def check(healthcheck: Healthcheck | None) -> None:
    """Check a health check.

    :raises InvalidRequest: when a duration, the retries or the test is not valid.
    """
    if healthcheck is None:
        return
    for name, value in (
        ("Interval", healthcheck.interval),
        ("Timeout", healthcheck.timeout),
        ("StartPeriod", healthcheck.start_period),
        ("StartInterval", healthcheck.start_interval),
    ):
        if value and value < _MILLISECOND:
            raise InvalidRequest(f"{name} in Healthcheck cannot be less than 1ms")
    if healthcheck.retries < 0:
        raise InvalidRequest("Retries in Healthcheck cannot be negative")
    kind = healthcheck.test[:1]
    if kind not in ((), ("NONE",), ("CMD",), ("CMD-SHELL",)):
        raise InvalidRequest(
            f"Unknown healthcheck type {kind[0]!r} (expected 'CMD')",
            hint="Test begins with NONE, CMD or CMD-SHELL",
        )
    if kind in (("CMD",), ("CMD-SHELL",)) and len(healthcheck.test) < 2:
        raise InvalidRequest("a health check needs a command")


def check_on_failure(body: ContainerCreate) -> tuple[str, ...]:
    """Check the value of :data:`ON_FAILURE_LABEL` and return warnings.

    :raises InvalidRequest: when the value is unknown, or contradicts ``--rm``.
    """
    action = body.labels.get(ON_FAILURE_LABEL)
    if action is None:
        return ()
    if action not in _ON_FAILURE_ACTIONS:
        raise InvalidRequest(
            f"invalid label {ON_FAILURE_LABEL}={action!r}",
            hint=f"must be one of {', '.join(_ON_FAILURE_ACTIONS)}",
        )
    if action == "none":
        return ()
    if action == "restart" and body.host_config.auto_remove:
        raise InvalidRequest(
            f"can't create 'AutoRemove' container with {ON_FAILURE_LABEL}={action}"
        )
    if probe_of(body) is None:
        return (f"The container has no health check, so {ON_FAILURE_LABEL}={action} has no effect",)
    return ()


def on_failure(body: ContainerCreate) -> str:
    """Return what the engine does with a container that is unhealthy: the action, or ``none``."""
    return body.labels.get(ON_FAILURE_LABEL, "none")


def probe_of(body: ContainerCreate) -> Probe | None:
    """Return the probe of a container, None without a health check."""
    healthcheck = body.healthcheck
    if healthcheck is None or healthcheck.test[:1] in ((), ("NONE",)):
        return None
    command = healthcheck.test[1:]
    if healthcheck.test[0] == "CMD-SHELL":
        command = (*(body.shell or _SHELL), *command)
    base = Probe(command)
    return Probe(
        command,
        healthcheck.interval or base.interval,
        healthcheck.timeout or base.timeout,
        healthcheck.start_period,
        healthcheck.start_interval or base.start_interval,
        healthcheck.retries or base.retries,
    )


def record_at_start(previous: HealthRecord | None) -> HealthRecord:
    """Return the health at a start: status ``starting``, with the results of the previous run."""
    return HealthRecord(log=previous.log if previous else ())


def record_at_exit(previous: HealthRecord | None) -> HealthRecord | None:
    """Return the health after init has exited: ``unhealthy``."""
    if previous is None:
        return None
    return msgspec.structs.replace(previous, status=HealthStatus.UNHEALTHY)


def next_record(
    previous: HealthRecord, result: HealthResult, probe: Probe, started_at: int
) -> HealthRecord:
    """Return the health that follows from a result; ``started_at`` is in nanoseconds."""
    log = (*previous.log, result)[-LOG_LENGTH:]
    if result.exit_code == 0:
        return HealthRecord(HealthStatus.HEALTHY, 0, log)
    in_start_period = result.start - started_at < probe.start_period
    if previous.status is HealthStatus.STARTING and in_start_period:
        return HealthRecord(previous.status, previous.failing_streak, log)
    streak = previous.failing_streak + 1
    status = HealthStatus.UNHEALTHY if streak >= probe.retries else previous.status
    return HealthRecord(status, streak, log)


def truncate_output(data: bytes) -> str:
    """Return the text that a probe wrote, truncated to :data:`OUTPUT_LENGTH` bytes."""
    text = data[:OUTPUT_LENGTH].decode("utf-8", "replace")
    return text + "..." if len(data) > OUTPUT_LENGTH else text


def timeout_message(probe: Probe, output: str) -> str:
    """Return the result text of a probe that was killed at its timeout."""
    message = f"Health check exceeded timeout ({go_duration(probe.timeout)})"
    return f"{message}: {output}" if output else message
