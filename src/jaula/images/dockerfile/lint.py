"""Build checks: warn about valid constructs that are probably mistakes.

Source: Docker's reference of build checks, from which the names of the rules are taken. Checks that
need values are in :mod:`~.stage_graph` and in :class:`~.apply.Scope`. The rules that ``#
check=skip=RULE,...`` names are dropped by :func:`without_skipped`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from jaula.images.dockerfile.ast import (
    Arg,
    Cmd,
    Directives,
    Dockerfile,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    LintWarning,
    Location,
    Maintainer,
    Stage,
    Workdir,
)
from jaula.images.dockerfile.dockerfile_error import DockerfileError, printable
from jaula.images.dockerfile.dockerfile_words import fields, split_first, split_quoted
from jaula.images.dockerfile.lexer import Lines

_RESERVED = ("context", "scratch")
_SECRETS = frozenset(
    {
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    }
)
_HARMLESS = frozenset({"public"})


def apply(dockerfile: Dockerfile, lines: Lines) -> Dockerfile:
    """Return the Dockerfile with its warnings.

    :raises DockerfileError: if there is one and ``# check=error=true`` is set.
    """
    warnings = [
        *lines.warnings,
        *_casing(lines),
        *_legacy_format(lines),
        *_stage_names(dockerfile.stages),
    ]
    for instruction in dockerfile.arguments:
        warnings += _secrets(instruction)
    for stage in dockerfile.stages:
        warnings += _stage(stage)
    warnings.sort(key=lambda warning: warning.location.first)
    checked = msgspec.structs.replace(
        dockerfile, warnings=tuple(without_skipped(warnings, dockerfile.directives))
    )
    if checked.warnings and _options(dockerfile.directives)[1]:
        first = checked.warnings[0]
        raise dockerfile.at(
            DockerfileError(f"{first.rule}: {first.message}", hint="check=error=true is set"),
            first.location,
        )
    return checked


def without_skipped(warnings: Iterable[LintWarning], directives: Directives) -> list[LintWarning]:
    """Return the warnings whose rules the Dockerfile does not skip."""
    skipped = _options(directives)[0]
    return [r for r in warnings if "all" not in skipped and r.rule not in skipped]


def _options(directives: Directives) -> tuple[list[str], bool]:
    """Return the rules to skip, and whether a warning is an error."""
    skipped: list[str] = []
    error = False
    for part in directives.check.split(";"):
        name, _, value = part.strip().partition("=")
        if name.strip() == "skip":
            skipped += [rule.strip() for rule in value.split(",")]
        elif name.strip() == "error":
            error = value.strip().lower() in ("1", "t", "true")
    return skipped, error


def _casing(lines: Lines) -> Iterator[LintWarning]:
    words = [(split_first(line.text)[0], line) for line in lines.lines]
    upper = sum(word.isupper() for word, _ in words)
    majority = "uppercase" if upper * 2 >= len(words) else "lowercase"
    for word, line in words:
        if not (word.isupper() if majority == "uppercase" else word.islower()):
            yield LintWarning(
                "ConsistentInstructionCasing",
                f"Command '{printable(word)}' should match the case of the command majority "
                f"({majority})",
                line.location,
            )
        if word.upper() == "FROM":
            yield from _from(word, fields(line.text), line.location)


def _from(word: str, parts: list[str], location: Location) -> Iterator[LintWarning]:
    if len(parts) < 4 or parts[-2].lower() != "as":
        return
    if parts[-2].isupper() != word.isupper():
        message = f"'{parts[-2]}' and '{word}' keywords' casing do not match"
        yield LintWarning("FromAsCasing", message, location)
    if parts[-1] != parts[-1].lower():
        message = f"Stage name '{printable(parts[-1])}' should be lowercase"
        yield LintWarning("StageNameCasing", message, location)


def _legacy_format(lines: Lines) -> Iterator[LintWarning]:
    for line in lines.lines:
        word, rest = split_first(line.text)
        if (
            word.upper() in ("ENV", "LABEL")
            and "=" not in rest.partition(" ")[0]
            and "=" not in split_quoted(rest, lines.directives.escape)[0]
        ):
            key = word.upper()
            yield LintWarning(
                "LegacyKeyValueFormat",
                f'"{key} key=value" should be used instead of legacy "{key} key value" format',
                line.location,
            )


def _stage_names(stages: Iterable[Stage]) -> Iterator[LintWarning]:
    seen: set[str] = set()
    for stage in stages:
        if stage.name in _RESERVED:
            message = f"Stage name should not use the same name as reserved stage '{stage.name}'"
            yield LintWarning("ReservedStageName", message, stage.base.location)
        if stage.name in seen:
            message = f"Duplicate stage name '{stage.name}', stage names should be unique"
            yield LintWarning("DuplicateStageName", message, stage.base.location)
        if stage.name:
            seen.add(stage.name)


def _ports(instruction: Expose) -> Iterator[LintWarning]:
    for text in instruction.ports:
        number, _, protocol = text.partition("/")
        if ":" in number and "$" not in number:
            yield LintWarning(
                "ExposeInvalidFormat",
                "EXPOSE instruction should not define an IP address or host-port mapping, "
                f"found '{printable(text)}'",
                instruction.location,
            )
        if protocol != protocol.lower() and "$" not in protocol:
            yield LintWarning(
                "ExposeProtoCasing",
                f"Defined protocol '{printable(protocol)}' in EXPOSE instruction "
                "should be lowercase",
                instruction.location,
            )


def _secrets(instruction: Env | Arg) -> Iterator[LintWarning]:
    for name, _ in instruction.pairs:
        words = set(name.lower().split("_"))
        if words & _SECRETS and not words & _HARMLESS:
            yield LintWarning(
                "SecretsUsedInArgOrEnv",
                "Do not use ARG or ENV instructions for sensitive data "
                f'({instruction.word} "{printable(name)}")',
                instruction.location,
            )


def _stage(stage: Stage) -> Iterator[LintWarning]:
    last: dict[type[Instruction], Instruction] = {}
    absolute = False
    for instruction in stage.instructions:
        location = instruction.location
        if isinstance(instruction, Cmd | Entrypoint | Healthcheck):
            if type(instruction) in last:
                yield LintWarning(
                    "MultipleInstructionsDisallowed",
                    f"Multiple {instruction.word} instructions should not be used in the same "
                    "stage because only the last one will be used",
                    last[type(instruction)].location,
                )
            last[type(instruction)] = instruction
        if isinstance(instruction, Cmd | Entrypoint) and instruction.shell_form:
            yield LintWarning(
                "JSONArgsRecommended",
                f"JSON arguments recommended for {instruction.word} to prevent unintended behavior "
                "related to OS signals",
                location,
            )
        elif isinstance(instruction, Maintainer):
            message = "Maintainer instruction is deprecated in favor of using label"
            yield LintWarning("MaintainerDeprecated", message, location)
        elif isinstance(instruction, Env | Arg):
            yield from _secrets(instruction)
        elif isinstance(instruction, Expose):
            yield from _ports(instruction)
        elif isinstance(instruction, Workdir):
            if not absolute and not instruction.path.startswith(("/", "$")):
                yield LintWarning(
                    "WorkdirRelativePath",
                    f"Relative workdir '{printable(instruction.path)}' can have unexpected results "
                    "if the base image changes",
                    location,
                )
            absolute = True
