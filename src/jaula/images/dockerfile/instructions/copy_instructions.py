"""Parse the instructions that copy files: COPY and ADD."""

from __future__ import annotations

from jaula.images.dockerfile.ast import Add, Copy, Heredoc, InstructionLine
from jaula.images.dockerfile.dockerfile_error import DockerfileError, printable
from jaula.images.dockerfile.dockerfile_words import fields, json_list
from jaula.images.dockerfile.lexer import check_file_name, parse_marker


def copy(line: InstructionLine) -> Copy:
    """Parse a COPY. The last path is the target."""
    sources, heredocs, target = _paths(line)
    origin = line.flags.text("from")
    if "$" in origin:
        raise DockerfileError(
            "variable expansion is not supported for --from",
            hint="define a new stage with FROM using ARG from global scope",
        )
    return Copy(
        line.location,
        "",
        sources,
        target,
        heredocs,
        origin,
        line.flags.text("chown"),
        line.flags.text("chmod"),
        line.flags.switch("link") or False,
        line.flags.switch("parents") or False,
        line.flags.texts("exclude"),
    )


def add(line: InstructionLine) -> Add:
    """Parse an ADD. The last path is the target."""
    sources, heredocs, target = _paths(line)
    return Add(
        line.location,
        "",
        sources,
        target,
        heredocs,
        line.flags.text("chown"),
        line.flags.text("chmod"),
        line.flags.switch("link") or False,
        line.flags.texts("exclude"),
        line.flags.text("checksum"),
        line.flags.switch("keep-git-dir") or False,
        line.flags.switch("unpack"),
    )


def _paths(line: InstructionLine) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    listed = json_list(line.rest)
    words = fields(line.rest) if listed is None else list(listed)
    if len(words) < 2:
        raise DockerfileError(
            f"{line.word} requires at least two arguments"
            + (", but only one was provided. Destination could not be determined" if words else "")
        )
    target = words.pop()
    if listed is not None:
        return tuple(words), (), target
    if line.heredocs and parse_marker(target) is not None:
        raise DockerfileError(
            f"{line.word} cannot accept a heredoc as a destination: {printable(target)}"
        )
    if not line.heredocs:
        return tuple(words), (), target
    by_name = {heredoc.name: heredoc for heredoc in line.heredocs}
    sources: list[str] = []
    heredocs: list[Heredoc] = []
    for word in words:
        heredoc = parse_marker(word)
        if heredoc is not None and heredoc.name in by_name:
            heredocs.append(by_name[check_file_name(heredoc.name)])
        else:
            sources.append(word)
    return tuple(sources), tuple(heredocs), target
