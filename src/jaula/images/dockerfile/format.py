"""Canonical texts of instructions.

The text of :func:`source_text` has normal spacing and case, and keeps quotes and variables. The
text of :func:`expanded_text` contains every value, quoted if necessary. So two expanded texts are
equal only if all values are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from jaula.images.dockerfile.ast import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Instruction,
    Label,
    MountKind,
    Run,
    RunMount,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from jaula.images.dockerfile.dockerfile_words import format_json, quote

if TYPE_CHECKING:
    from jaula.images.dockerfile.ast import InstructionLine


def source_text(instruction: Instruction, line: InstructionLine, flags: tuple[str, ...]) -> str:
    """Return the canonical text of a parsed instruction, with its variables."""
    if isinstance(instruction, Env | Label | Arg):
        rest = _pairs(instruction.pairs)
    elif isinstance(instruction, Expose):
        rest = " ".join(instruction.ports)
    elif isinstance(instruction, From):
        rest = instruction.base + (f" AS {instruction.name}" if instruction.name else "")
    elif isinstance(instruction, Shell):
        rest = format_json(instruction.command)
    elif isinstance(instruction, Volume):
        rest = format_json(instruction.paths)
    elif (
        isinstance(instruction, Run | Cmd | Entrypoint)
        and instruction.command
        and not instruction.shell_form
    ):
        rest = format_json(instruction.command)
    else:
        rest = line.rest
    text = " ".join([line.word, *flags, rest])
    return f"{text}\n{line.documents}" if line.heredocs else text


def _pairs(pairs: Iterable[tuple[str, str | None]]) -> str:
    return " ".join(name if value is None else f"{name}={value}" for name, value in pairs)


def expanded_text(instruction: Instruction) -> str:
    """Return the canonical text of an instruction whose values are known."""
    if isinstance(instruction, Env | Label):
        return _line(instruction, (f"{quote(k)}={quote(v)}" for k, v in instruction.pairs))
    if isinstance(instruction, Arg):
        return _line(
            instruction,
            (quote(k) if v is None else f"{quote(k)}={quote(v)}" for k, v in instruction.pairs),
        )
    if isinstance(instruction, Copy | Add):
        return _copy(instruction)
    if isinstance(instruction, Expose):
        return _line(instruction, map(quote, instruction.ports))
    if isinstance(instruction, Volume):
        return _line(instruction, map(quote, instruction.paths))
    if isinstance(instruction, User):
        return _line(instruction, [quote(instruction.user)])
    if isinstance(instruction, Workdir):
        return _line(instruction, [quote(instruction.path)])
    if isinstance(instruction, StopSignal):
        return _line(instruction, [quote(instruction.signal)])
    if isinstance(instruction, Run):
        return _run(instruction)
    return instruction.source


def _line(instruction: Instruction, words: Iterable[str]) -> str:
    return " ".join([instruction.word, *words])


def _copy(instruction: Copy | Add) -> str:
    flags: list[str] = []
    for name in ("origin", "chown", "chmod", "checksum"):
        value = getattr(instruction, name, "")
        if value:
            flags.append(f"--{'from' if name == 'origin' else name}={quote(value)}")
    for name in ("link", "parents", "keep_git_dir"):
        if getattr(instruction, name, False):
            flags.append(f"--{name.replace('_', '-')}")
    if isinstance(instruction, Add) and instruction.unpack is not None:
        flags.append(f"--unpack={'true' if instruction.unpack else 'false'}")
    flags += [f"--exclude={quote(pattern)}" for pattern in instruction.excludes]
    documents = [f"<<{quote(heredoc.name)}" for heredoc in instruction.heredocs]
    head = _line(
        instruction,
        [*flags, *map(quote, instruction.sources), *documents, quote(instruction.target)],
    )
    bodies = [f"\n{heredoc.content}{heredoc.name}" for heredoc in instruction.heredocs]
    return head + "".join(bodies)


def _run(instruction: Run) -> str:
    """Return the text with expanded mounts. No other part of it may contain a variable."""
    before = " ".join(["RUN", *instruction.flags])
    flags = [f for f in instruction.flags if not f.startswith("--mount=")]
    flags += [f"--mount={_mount(mount)}" for mount in instruction.mounts]
    return " ".join(["RUN", *flags]) + instruction.source[len(before) :]


def _mount(mount: RunMount) -> str:
    defaults = RunMount(
        kind=mount.kind, writable=mount.kind in (MountKind.CACHE, MountKind.TMPFS), id=mount.id
    )
    options = [f"type={mount.kind}"]
    for name in (
        "origin",
        "source",
        "target",
        "id",
        "env",
        "sharing",
        "mode",
        "uid",
        "gid",
        "size",
    ):
        value = getattr(mount, name)
        if value != getattr(defaults, name) or (name == "id" and value):
            text = f"{value:o}" if name == "mode" else f"{value}"
            options.append(quote(f"{'from' if name == 'origin' else name}={text}"))
    if mount.writable != defaults.writable:
        options.append("readwrite" if mount.writable else "readonly")
    if mount.required:
        options.append("required")
    return ",".join(options)
