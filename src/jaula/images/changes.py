"""Changes to an image's configuration, in the words of a Dockerfile.

Source: the Dockerfile reference; of its instructions those that need no build, as ``docker import``
and ``docker commit`` take them with ``--change``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec.image import ImageConfig

_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)


def apply(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """The configuration with ``changes``; raises :class:`InvalidRequest` naming the line."""
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        change = _CHANGES.get(word.upper())
        if change is None:
            raise InvalidRequest(
                f"{word[:40]!r} is not a valid change command",
                hint=f"there are {', '.join(_CHANGES)}",
            )
        if not rest.strip():
            raise InvalidRequest(f"{word.upper()} needs an argument")
        if "\0" in rest or "\n" in rest:
            raise InvalidRequest(f"{word.upper()} has an argument with a line break or a zero byte")
        config = change(config, rest.strip())
    return config


def _command(text: str) -> tuple[str, ...]:
    """The exec form where it is a JSON list of strings, else a shell's command line."""
    if text.startswith("["):
        try:
            return msgspec.json.decode(text.encode(), type=tuple[str, ...])
        except msgspec.DecodeError:
            pass  # as Docker: what is no JSON list is a command line
    return ("/bin/sh", "-c", text)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidRequest(f"{text[:80]!r} is not valid: {error}") from error


def _pairs(text: str) -> list[tuple[str, str]]:
    """``NAME=value ...``, or the old form ``NAME value``."""
    words = _words(text)
    if "=" not in words[0]:
        name, _, value = text.partition(" ")
        if not value:
            raise InvalidRequest(f"{text[:80]!r} must have two arguments, or be NAME=value")
        return [(name, value.strip())]
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not equals or not name:
            raise InvalidRequest(f"{name[:80]!r} is not of the form NAME=value")
    return [(name, value) for name, _, value in pairs]


def _cmd(config: ImageConfig, text: str) -> ImageConfig:
    return msgspec.structs.replace(config, cmd=_command(text))


def _entrypoint(config: ImageConfig, text: str) -> ImageConfig:
    return msgspec.structs.replace(config, entrypoint=_command(text))


def _env(config: ImageConfig, text: str) -> ImageConfig:
    merged = dict(variable.partition("=")[::2] for variable in config.env) | dict(_pairs(text))
    return msgspec.structs.replace(config, env=tuple(f"{n}={v}" for n, v in merged.items()))


def _expose(config: ImageConfig, text: str) -> ImageConfig:
    ports = dict(config.exposed_ports)
    for word in text.split():
        match = _PORT.fullmatch(word)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if match is None or not 0 < first <= last < 65536:
            raise InvalidRequest(f"EXPOSE: invalid port {word[:40]!r}")
        for port in range(first, last + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
    return msgspec.structs.replace(config, exposed_ports=ports)


def _label(config: ImageConfig, text: str) -> ImageConfig:
    return msgspec.structs.replace(config, labels=config.labels | dict(_pairs(text)))


def _stop_signal(config: ImageConfig, text: str) -> ImageConfig:
    return msgspec.structs.replace(config, stop_signal=text)


def _user(config: ImageConfig, text: str) -> ImageConfig:
    return msgspec.structs.replace(config, user=text)


def _volume(config: ImageConfig, text: str) -> ImageConfig:
    listed = _command(text) if text.startswith("[") else tuple(text.split())
    return msgspec.structs.replace(config, volumes=config.volumes | {path: {} for path in listed})


def _workdir(config: ImageConfig, text: str) -> ImageConfig:
    path = text if text.startswith("/") else f"{config.working_dir or ''}/{text}"
    return msgspec.structs.replace(config, working_dir=path)


_CHANGES: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
