"""What variables are worth at each step of a stage.

Source: the Dockerfile reference, sections ARG ('Scope', 'Using ARG variables', 'Impact on build
caching') and ENV. An ENV hides an ARG of its name. An ARG counts from its line on, and in the
stages that go on from this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaula.images.build.dockerfile.ast import Arg, Env, Instruction
from jaula.images.build.dockerfile.document import LintWarning
from jaula.images.build.dockerfile.errors import DockerfileError
from jaula.images.build.dockerfile.expand import expand
from jaula.images.build.dockerfile.stage_graph import StageGraph

_LONGEST = 131071
"""Bytes of NAME=VALUE: ``execve(2)`` takes no longer string (MAX_ARG_STRLEN, with its zero)."""


class Scope:
    """The variables of one stage; each instruction passes through :meth:`take` in its order.

    ``environment`` is that of the base image, as ``NAME=value``. ``base`` is the scope of the stage
    that this one goes on from, as it was at its end.
    """

    def __init__(
        self, plan: StageGraph, environment: Sequence[str] = (), base: Scope | None = None
    ) -> None:
        self._plan = plan
        self._environment = dict(v.partition("=")[::2] for v in environment)
        self._arguments: dict[str, str] = dict(base._arguments) if base else {}
        self.remarks: list[LintWarning] = []

    def take(self, instruction: Instruction) -> Instruction:
        """The instruction with its variables' values; those that it sets count from now on.

        Raises :class:`DockerfileError` with the Dockerfile's name and lines.
        """
        dockerfile = self._plan.dockerfile
        unset: set[str] = set()
        try:
            taken = expand(
                instruction, self._variables(), dockerfile.directives.escape, unset=unset
            )
            if isinstance(taken, Env):
                for name, value in taken.pairs:
                    self._environment[name] = _fits(name, value)
            elif isinstance(taken, Arg):
                self._declare(taken)
        except DockerfileError as mistake:
            raise dockerfile.at(DockerfileError(mistake.reason), instruction.place) from None
        for name in sorted(unset):
            self.remarks.append(
                LintWarning(
                    "UndefinedVar", f"Usage of undefined variable '${name}'", instruction.place
                )
            )
        return taken

    def arguments(self) -> dict[str, str]:
        """What a RUN gets beside the environment; it belongs to its cache key and history."""
        return {k: v for k, v in self._arguments.items() if k not in self._environment}

    def environment(self) -> dict[str, str]:
        """All that a RUN gets, the hidden ones (proxies) included."""
        return {**self._plan.hidden, **self._arguments, **self._environment}

    def _variables(self) -> Mapping[str, str]:
        return {**self._arguments, **self._environment}

    def _declare(self, taken: Arg) -> None:
        for name, default in taken.pairs:
            value = self._plan.build_args.get(name)
            if value is None:
                value = default if default is not None else self._plan.arguments.get(name)
            if value is not None:
                self._arguments[name] = _fits(name, value)


def _fits(name: str, value: str) -> str:
    if "\0" in value:
        raise DockerfileError(f"the value of {name[:80]} has a zero byte in it")
    if len(name.encode()) + len(value.encode()) >= _LONGEST:
        raise DockerfileError(f"{name[:80]} and its value are longer than {_LONGEST} bytes")
    return value
