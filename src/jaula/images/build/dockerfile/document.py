"""A Dockerfile that was read: directives, arguments for all stages, the stages, what looks odd."""

from __future__ import annotations

import msgspec

from jaula.images.build.dockerfile.ast import Arg, From, Instruction, Location
from jaula.images.build.dockerfile.errors import DockerfileError


class LintWarning(msgspec.Struct, frozen=True):
    """A valid construct that is probably a mistake. ``rule`` is BuildKit's name of the check."""

    rule: str
    message: str
    place: Location


class Directives(msgspec.Struct, frozen=True):
    """Parser directives (``# name=value``) at the top. ``escape`` is a backslash or a backtick."""

    escape: str = "\\"
    syntax: str = ""
    check: str = ""


class Stage(msgspec.Struct, frozen=True):
    """The instructions from one FROM to the next.

    ``index`` counts from 0; ``name`` is in lower case, '' for an unnamed stage.
    """

    index: int
    name: str
    base: From
    instructions: tuple[Instruction, ...]


class Dockerfile(msgspec.Struct, frozen=True):
    """``arguments`` are the ARGs before the first FROM; ``lines`` is the unchanged text."""

    name: str
    directives: Directives
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    lines: tuple[str, ...]
    remarks: tuple[LintWarning, ...] = ()

    def at(self, error: DockerfileError, place: Location) -> DockerfileError:
        """Return the error with its location and the text of its lines."""
        return error.at(self.name, place.first, self.lines[place.first - 1 : place.last])
