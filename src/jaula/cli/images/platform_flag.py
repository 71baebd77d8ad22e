"""The flag ``--platform`` of commands for images, as a parameter of the API.

The API has a platform as JSON (Docker Engine API 1.46). The engine checks the names.
"""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.cli.command_parser import Flag
from jaula.cli.environ import text as environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.command_parser import Options

_SYSTEMS = ("linux", "windows", "darwin", "freebsd")


def flag(help: str, kind: str = "string") -> Flag:
    """Return the flag ``--platform``; of kind ``list`` it may be repeated."""
    return Flag("platform", "", kind, help)


def requested(options: Options) -> str:
    """Return the platform for a new image or container: the flag's, or Docker's default for it.

    Commands that show or send a stored image have no default.
    """
    return options.text("platform") or environment("DOCKER_DEFAULT_PLATFORM")


def encode(text: str) -> str:
    """Return ``os/arch[/variant]`` as JSON.

    :raises UsageError: when it is not a platform.
    """
    from jaula.spec.fast_json import encode as encode_json

    parts = text.split("/")
    if len(parts) == 1 and parts[0] not in _SYSTEMS:
        parts.insert(0, "linux")
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(
            f'invalid platform: "{text}": write OS/ARCHITECTURE[/VARIANT], for example linux/amd64',
            status=1,
        )
    names = ("os", "architecture", "variant")
    return encode_json(dict(zip(names, parts, strict=False)))


def query(options: Options, name: str = "platform") -> list[tuple[str, str]]:
    """Return the parameter ``name`` for a flag that is set once or not at all."""
    text = options.text("platform")
    return [(name, encode(text))] if text else []


def queries(options: Options, name: str = "platform") -> list[tuple[str, str]]:
    """Return the parameter ``name`` for each platform of a flag of kind ``list``.

    A value may be a list of platforms with commas.
    """
    texts = [part for text in options.texts("platform") for part in text.split(",")]
    return [(name, encode(text)) for text in texts]
