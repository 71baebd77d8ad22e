"""Apply instructions to an image configuration, with the variables in scope. Pure.

Source: the Dockerfile reference and the OCI image specification, ``config.md``. ``docker commit
--change`` and ``docker import --change`` accept the instructions of :data:`CHANGES`, in the same
language.
"""

from __future__ import annotations

import posixpath
from collections import ChainMap
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.dockerfile.ast import (
    Arg,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    LintWarning,
    Onbuild,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from jaula.images.dockerfile.budget import BuildBudget
from jaula.images.dockerfile.dockerfile_error import DockerfileError, printable
from jaula.images.dockerfile.dockerfile_parser import parse_one
from jaula.images.dockerfile.expand import expand, parse_ports
from jaula.images.dockerfile.stage_graph import StageGraph
from jaula.spec.image_documents import EmptyObject, ImageConfig

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
        self,
        plan: StageGraph,
        environment: Sequence[str] = (),
        base: Scope | None = None,
        budget: BuildBudget | None = None,
    ) -> None:
        self._plan = plan
        self._environment = dict(v.partition("=")[::2] for v in environment)
        self._arguments: dict[str, str] = dict(base._arguments) if base else {}
        self._budget = budget or BuildBudget()
        self._visible = ChainMap(self._environment, self._arguments)
        self.warnings: list[LintWarning] = []

    def take(self, instruction: Instruction) -> Instruction:
        """Return the instruction with its variables replaced, and set those that it defines.

        :raises DockerfileError: with the location in the Dockerfile, if the result is not valid.
        """
        dockerfile = self._plan.dockerfile
        unset: set[str] = set()
        try:
            expanded = expand(
                instruction,
                self._visible,
                dockerfile.directives.escape,
                unset=unset,
                budget=self._budget,
            )
            if isinstance(expanded, Env):
                for name, value in expanded.pairs:
                    self._environment[name] = _check_length(name, value)
            elif isinstance(expanded, Arg):
                self._declare(expanded)
        except DockerfileError as error:
            raise dockerfile.at(DockerfileError(error.reason), instruction.location) from None
        for name in sorted(unset):
            self.warnings.append(
                LintWarning(
                    "UndefinedVar", f"Usage of undefined variable '${name}'", instruction.location
                )
            )
        return expanded

    def arguments(self) -> dict[str, str]:
        """Return the ARGs that a RUN gets. They are part of its cache key and history."""
        return {k: v for k, v in self._arguments.items() if k not in self._environment}

    def environment(self) -> dict[str, str]:
        """Return all variables that a RUN gets, including the hidden ones (proxies)."""
        return {**self._plan.hidden, **self._arguments, **self._environment}

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


SHELL = ("/bin/sh", "-c")
"""The default of SHELL, which executes the shell form."""


def change(
    config: ImageConfig,
    instruction: Instruction,
    *,
    own_command: bool = False,
    buildkit: bool = False,
) -> ImageConfig:
    """Return the configuration after an expanded ``instruction``, unchanged for one about files.

    An ENTRYPOINT clears the CMD of the base image, but not one of the same stage: ``own_command``
    is true if there was one. ``buildkit`` selects BuildKit's values of a CMD and an ENTRYPOINT
    instead of those of the classic builder, measured at dockerd 26.

    :raises DockerfileError: without a location, if the instruction is not valid.
    """
    handler = _HANDLERS.get(type(instruction))
    if handler is None:
        return config
    if isinstance(instruction, Entrypoint) and not own_command:
        config = msgspec.structs.replace(config, cmd=None)
    changes = handler(config, instruction)
    if buildkit and isinstance(instruction, Cmd | Entrypoint):
        changes = _buildkit_command(config, instruction)
    return msgspec.structs.replace(config, **changes)


def entries(config: ImageConfig) -> int:
    """Return the number of entries of a configuration, to which the work of a step is proportional.

    Pure.
    """
    lists = (config.env, config.labels, config.exposed_ports, config.volumes, config.on_build)
    return sum(map(len, lists))


def sets_command(instruction: Instruction) -> bool:
    """Return whether an ENTRYPOINT after this instruction leaves the command alone. Pure."""
    return isinstance(instruction, Cmd) and bool(instruction.command)


def apply(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """Return the configuration with the instructions of ``--change`` applied.

    Variables are those of the configuration's environment.

    :raises InvalidRequest: if an instruction is not valid; the message contains it.
    """
    own_command = False
    budget = BuildBudget()
    for line in changes:
        text = line.strip()
        try:
            instruction = parse_one(line)
            if type(instruction) not in _HANDLERS:
                raise DockerfileError(
                    f"{instruction.word} is not a valid change command",
                    hint=f"one of {', '.join(CHANGES)}",
                )
            budget.entries(entries(config))
            variables = dict(variable.partition("=")[::2] for variable in config.env)
            config = change(
                config, expand(instruction, variables, budget=budget), own_command=own_command
            )
            own_command = own_command or sets_command(instruction)
        except DockerfileError as error:
            raise InvalidRequest(f"--change {printable(text)!r}: {error.reason}") from None
    return config


def shell_command(
    config: ImageConfig, command: tuple[str, ...], *, shell_form: bool
) -> tuple[str, ...]:
    """Return the command to execute. In the shell form the configuration's shell runs the text."""
    return (*(config.shell or SHELL), *command) if shell_form else command


def _cmd(config: ImageConfig, instruction: Cmd) -> dict[str, Any]:
    return {"cmd": shell_command(config, instruction.command, shell_form=instruction.shell_form)}


def _entrypoint(config: ImageConfig, instruction: Entrypoint) -> dict[str, Any]:
    command = instruction.command
    if command:
        command = shell_command(config, command, shell_form=instruction.shell_form)
    return {"entrypoint": command}


def _buildkit_command(config: ImageConfig, instruction: Cmd | Entrypoint) -> dict[str, Any]:
    """Return BuildKit's values: no empty list, and an empty text is a text."""
    command, shell_form = instruction.command, instruction.shell_form
    if shell_form:
        command = shell_command(config, command or ("",), shell_form=True)
    if isinstance(instruction, Entrypoint):
        return {"entrypoint": command}
    return {"cmd": command or None, "args_escaped": True}


def _env(config: ImageConfig, instruction: Env) -> dict[str, Any]:
    merged = dict(variable.partition("=")[::2] for variable in config.env) | dict(instruction.pairs)
    return {"env": tuple(f"{name}={value}" for name, value in merged.items())}


def _expose(config: ImageConfig, instruction: Expose) -> dict[str, Any]:
    added: dict[str, EmptyObject] = {}
    for text in instruction.ports:
        numbers, protocol = parse_ports(text)
        added |= {f"{number}/{protocol}": {} for number in numbers}
    return {"exposed_ports": config.exposed_ports | added}


def _label(config: ImageConfig, instruction: Label) -> dict[str, Any]:
    return {"labels": config.labels | dict(instruction.pairs)}


def _volume(config: ImageConfig, instruction: Volume) -> dict[str, Any]:
    return {"volumes": config.volumes | {path: {} for path in instruction.paths}}


def _workdir(config: ImageConfig, instruction: Workdir) -> dict[str, Any]:
    joined = posixpath.join("/", config.working_dir, instruction.path)
    return {"working_dir": "/" + posixpath.normpath(joined).lstrip("/")}


_HANDLERS: dict[type[Instruction], Callable[[ImageConfig, Any], dict[str, Any]]] = {
    Cmd: _cmd,
    Entrypoint: _entrypoint,
    Env: _env,
    Expose: _expose,
    Healthcheck: lambda config, instruction: {"healthcheck": instruction.check},
    Label: _label,
    Onbuild: lambda config, instruction: {"on_build": (*config.on_build, instruction.trigger)},
    Shell: lambda config, instruction: {"shell": instruction.command},
    StopSignal: lambda config, instruction: {"stop_signal": instruction.signal},
    User: lambda config, instruction: {"user": instruction.user},
    Volume: _volume,
    Workdir: _workdir,
}

CHANGES = tuple(kind.__name__.upper() for kind in _HANDLERS)
"""The instructions that ``--change`` accepts."""
