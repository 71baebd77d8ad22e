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
"""What runs the shell form where no SHELL was given."""


def change(
    config: ImageConfig, instruction: Instruction, *, own_command: bool = False
) -> ImageConfig:
    """The configuration after an expanded ``instruction``; the same for one that is about files.

    An ENTRYPOINT takes away the CMD of the base image, but not one of the same stage:
    ``own_command`` says that there was one. Raises :class:`DockerfileError` without a place.
    """
    handler = _HANDLERS.get(type(instruction))
    if handler is None:
        return config
    if isinstance(instruction, Entrypoint) and not own_command:
        config = msgspec.structs.replace(config, cmd=())
    return msgspec.structs.replace(config, **handler(config, instruction))


def apply(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """The configuration with the lines that ``--change`` gave.

    Variables are those of the configuration's environment. Raises :class:`InvalidRequest`, which
    shows the line.
    """
    own_command = False
    for line in changes:
        shown = line.strip()
        try:
            instruction = parse_one(line)
            if type(instruction) not in _HANDLERS:
                raise DockerfileError(
                    f"{instruction.word} is not a valid change command",
                    hint=f"there are {', '.join(CHANGES)}",
                )
            variables = dict(variable.partition("=")[::2] for variable in config.env)
            config = change(config, expand(instruction, variables), own_command=own_command)
            own_command = own_command or isinstance(instruction, Cmd)
        except DockerfileError as mistake:
            raise InvalidRequest(f"--change {plain(shown)!r}: {mistake.reason}") from None
    return config


def shell_command(
    config: ImageConfig, command: tuple[str, ...], *, shell_form: bool
) -> tuple[str, ...]:
    """What is executed: in the shell form it is the configuration's shell that reads the text."""
    return (*(config.shell or SHELL), *command) if shell_form else command


def _cmd(config: ImageConfig, said: Cmd) -> dict[str, Any]:
    return {"cmd": shell_command(config, said.command, shell_form=said.shell_form)}


def _entrypoint(config: ImageConfig, said: Entrypoint) -> dict[str, Any]:
    return {"entrypoint": shell_command(config, said.command, shell_form=said.shell_form)}


def _env(config: ImageConfig, said: Env) -> dict[str, Any]:
    merged = dict(variable.partition("=")[::2] for variable in config.env) | dict(said.pairs)
    return {"env": tuple(f"{name}={value}" for name, value in merged.items())}


def _expose(config: ImageConfig, said: Expose) -> dict[str, Any]:
    added: dict[str, EmptyObject] = {}
    for text in said.ports:
        numbers, protocol = ports(text)
        added |= {f"{number}/{protocol}": {} for number in numbers}
    return {"exposed_ports": config.exposed_ports | added}


def _label(config: ImageConfig, said: Label) -> dict[str, Any]:
    return {"labels": config.labels | dict(said.pairs)}


def _volume(config: ImageConfig, said: Volume) -> dict[str, Any]:
    return {"volumes": config.volumes | {path: {} for path in said.paths}}


def _workdir(config: ImageConfig, said: Workdir) -> dict[str, Any]:
    joined = posixpath.join("/", config.working_dir, said.path)
    return {"working_dir": "/" + posixpath.normpath(joined).lstrip("/")}


_HANDLERS: dict[type[Instruction], Callable[[ImageConfig, Any], dict[str, Any]]] = {
    Cmd: _cmd,
    Entrypoint: _entrypoint,
    Env: _env,
    Expose: _expose,
    Healthcheck: lambda config, said: {"healthcheck": said.check},
    Label: _label,
    Onbuild: lambda config, said: {"on_build": (*config.on_build, said.trigger)},
    Shell: lambda config, said: {"shell": said.command},
    StopSignal: lambda config, said: {"stop_signal": said.signal},
    User: lambda config, said: {"user": said.user},
    Volume: _volume,
    Workdir: _workdir,
}

CHANGES = tuple(kind.__name__.upper() for kind in _HANDLERS)
"""The instructions that a ``--change`` may have."""
