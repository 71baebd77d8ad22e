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

_MAX_LENGTH = 131071
"""Bytes of NAME=VALUE: the limit of ``execve(2)`` (MAX_ARG_STRLEN, including the null byte)."""


class Scope:
    """The variables of one stage. Pass each instruction to :meth:`take` in order.

    ``environment`` is that of the base image, as ``NAME=value``. ``base`` is the scope at the end
    of the stage that this one is based on.

    Source: the Dockerfile reference, sections ARG ('Scope', 'Using ARG variables', 'Impact on build
    caching') and ENV. An ENV hides an ARG of its name. An ARG is visible from its line on, and in
    the stages based on this one.
    """

    def __init__(
        self, plan: StageGraph, environment: Sequence[str] = (), base: Scope | None = None
    ) -> None:
        self._plan = plan
        self._environment = dict(v.partition("=")[::2] for v in environment)
        self._arguments: dict[str, str] = dict(base._arguments) if base else {}
        self.remarks: list[LintWarning] = []

    def take(self, instruction: Instruction) -> Instruction:
        """Return the instruction with its variables replaced, and set those that it defines.

        :raises DockerfileError: with the location in the Dockerfile, if the result is not valid.
        """
        dockerfile = self._plan.dockerfile
        unset: set[str] = set()
        try:
            expanded = expand(
                instruction, self._variables(), dockerfile.directives.escape, unset=unset
            )
            if isinstance(expanded, Env):
                for name, value in expanded.pairs:
                    self._environment[name] = _check_length(name, value)
            elif isinstance(expanded, Arg):
                self._declare(expanded)
        except DockerfileError as error:
            raise dockerfile.at(DockerfileError(error.reason), instruction.place) from None
        for name in sorted(unset):
            self.remarks.append(
                LintWarning(
                    "UndefinedVar", f"Usage of undefined variable '${name}'", instruction.place
                )
            )
        return expanded

    def arguments(self) -> dict[str, str]:
        """Return the ARGs that a RUN gets. They are part of its cache key and history."""
        return {k: v for k, v in self._arguments.items() if k not in self._environment}

    def environment(self) -> dict[str, str]:
        """Return all variables that a RUN gets, including the hidden ones (proxies)."""
        return {**self._plan.hidden, **self._arguments, **self._environment}

    def _variables(self) -> Mapping[str, str]:
        return {**self._arguments, **self._environment}

    def _declare(self, expanded: Arg) -> None:
        for name, default in expanded.pairs:
            value = self._plan.build_args.get(name)
            if value is None:
                value = default if default is not None else self._plan.arguments.get(name)
            if value is not None:
                self._arguments[name] = _check_length(name, value)


def _check_length(name: str, value: str) -> str:
    if "\0" in value:
        raise DockerfileError(f"the value of {name[:80]} contains a null byte")
    if len(name.encode()) + len(value.encode()) >= _MAX_LENGTH:
        raise DockerfileError(f"{name[:80]} and its value are longer than {_MAX_LENGTH} bytes")
    return value
