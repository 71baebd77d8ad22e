"""What an instruction changes of an image's configuration. Pure.

Source: the Dockerfile reference and the OCI image specification, ``config.md``. ``docker commit
--change`` and ``docker import --change`` take those of :data:`CHANGES`, in the same language.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.build.dockerfile.ast import (
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Onbuild,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from jaula.images.build.dockerfile.errors import DockerfileError, plain
from jaula.images.build.dockerfile.expand import expand
from jaula.images.build.dockerfile.expose import ports
from jaula.images.build.dockerfile.parse import parse_one
from jaula.spec.image import EmptyObject, ImageConfig

SHELL = ("/bin/sh", "-c")
"""The default of SHELL, which executes the shell form."""


def change(
    config: ImageConfig, instruction: Instruction, *, own_command: bool = False
) -> ImageConfig:
    """Return the configuration after an expanded ``instruction``, unchanged for one about files.

    An ENTRYPOINT clears the CMD of the base image, but not one of the same stage: ``own_command``
    is true if there was one.

    :raises DockerfileError: without a location, if the instruction is not valid.
    """
    handler = _HANDLERS.get(type(instruction))
    if handler is None:
        return config
    if isinstance(instruction, Entrypoint) and not own_command:
        config = msgspec.structs.replace(config, cmd=())
    return msgspec.structs.replace(config, **handler(config, instruction))


def apply(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """Return the configuration with the instructions of ``--change`` applied.

    Variables are those of the configuration's environment.

    :raises InvalidRequest: if an instruction is not valid; the message contains it.
    """
    own_command = False
    for line in changes:
        text = line.strip()
        try:
            instruction = parse_one(line)
            if type(instruction) not in _HANDLERS:
                raise DockerfileError(
                    f"{instruction.word} is not a valid change command",
                    hint=f"one of {', '.join(CHANGES)}",
                )
            variables = dict(variable.partition("=")[::2] for variable in config.env)
            config = change(config, expand(instruction, variables), own_command=own_command)
            own_command = own_command or isinstance(instruction, Cmd)
        except DockerfileError as error:
            raise InvalidRequest(f"--change {plain(text)!r}: {error.reason}") from None
    return config


def shell_command(
    config: ImageConfig, command: tuple[str, ...], *, shell_form: bool
) -> tuple[str, ...]:
    """Return the command to execute. In the shell form the configuration's shell runs the text."""
    return (*(config.shell or SHELL), *command) if shell_form else command


def _cmd(config: ImageConfig, instruction: Cmd) -> dict[str, Any]:
    return {"cmd": shell_command(config, instruction.command, shell_form=instruction.shell_form)}


def _entrypoint(config: ImageConfig, instruction: Entrypoint) -> dict[str, Any]:
    return {
        "entrypoint": shell_command(config, instruction.command, shell_form=instruction.shell_form)
    }


def _env(config: ImageConfig, instruction: Env) -> dict[str, Any]:
    merged = dict(variable.partition("=")[::2] for variable in config.env) | dict(instruction.pairs)
    return {"env": tuple(f"{name}={value}" for name, value in merged.items())}


def _expose(config: ImageConfig, instruction: Expose) -> dict[str, Any]:
    added: dict[str, EmptyObject] = {}
    for text in instruction.ports:
        numbers, protocol = ports(text)
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
