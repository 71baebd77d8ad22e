"""What the ``--health-*`` flags of ``run`` and ``create`` ask of the engine."""

from __future__ import annotations

from jaula.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.cli.command import Options

_TIMES = {
    "health-interval": "Interval",
    "health-start-interval": "StartInterval",
    "health-start-period": "StartPeriod",
    "health-timeout": "Timeout",
}
REACTION = "io.jaula.health-on-failure"
"""The label by which the engine knows what ``--health-on-failure`` asks for."""


def labels(options: Options) -> dict[str, str]:
    """The labels that the flags make."""
    flag = "health-on-failure"
    return {REACTION: options.text(flag)} if options.given(flag) else {}


def document(options: Options) -> dict[str, Any] | None:
    """What was asked of the health check; None: what the image has."""
    flags = ("health-cmd", "health-retries", *_TIMES)
    given = [flag for flag in flags if options.given(flag)]
    if options.on("no-healthcheck"):
        if given:
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not given:
        return None
    check: dict[str, Any] = {}
    if command := options.text("health-cmd"):
        check["Test"] = ["CMD-SHELL", command]
    if options.given("health-retries"):
        check["Retries"] = options.number("health-retries")
        if check["Retries"] < 0:
            raise UsageError("--health-retries cannot be negative")
    from jaula.spec import units

    for flag, name in _TIMES.items():
        if not options.given(flag):
            continue
        text = options.text(flag)
        try:
            check[name] = units.nanoseconds(text)
        except ValueError as error:
            raise UsageError(f'invalid argument "{text}" for "--{flag}" flag: {error}') from None
        if check[name] < 0:
            raise UsageError(f"--{flag} cannot be negative")
    return check
