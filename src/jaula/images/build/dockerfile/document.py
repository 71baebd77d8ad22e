"""A Dockerfile that was read: directives, arguments for all stages, the stages, what looks odd."""

from __future__ import annotations

import msgspec

from jaula.images.build.dockerfile.ast import Arg, From, Instruction, Location
from jaula.images.build.dockerfile.errors import DockerfileError


class LintWarning(msgspec.Struct, frozen=True):
    """What is allowed and most likely not meant; ``rule`` is BuildKit's name of the check."""

    rule: str
    message: str
    place: Location


class Directives(msgspec.Struct, frozen=True):
    """``# name=value`` at the very top. ``escape`` is a backslash or a backtick."""

    escape: str = "\\"
    syntax: str = ""
    check: str = ""


class Stage(msgspec.Struct, frozen=True):
    """From one FROM to the next. ``index`` counts from 0; ``name`` is lower case or ''."""

    index: int
    name: str
    base: From
    instructions: tuple[Instruction, ...]


class Dockerfile(msgspec.Struct, frozen=True):
    """``arguments`` are the ARGs before the first FROM, ``lines`` is the text as it was."""

    name: str
    directives: Directives
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    lines: tuple[str, ...]
    remarks: tuple[LintWarning, ...] = ()

    def at(self, mistake: DockerfileError, place: Location) -> DockerfileError:
        """The mistake with its place, and the lines shown."""
        return mistake.at(self.name, place.first, self.lines[place.first - 1 : place.last])
