"""Expand variables in instructions, where Docker expands them.

Source: the Dockerfile reference, section 'Environment replacement'. In RUN, CMD, ENTRYPOINT and
HEALTHCHECK the shell of the container expands variables, except in the mounts of a RUN. SHELL,
MAINTAINER and ONBUILD have no expansion. FROM uses other variables; :mod:`~.stage_graph` expands
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.dockerfile import format, shell_glob
from jaula.images.dockerfile.ast import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    Heredoc,
    Instruction,
    Label,
    Pairs,
    Run,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from jaula.images.dockerfile.budget import BuildBudget
from jaula.images.dockerfile.dockerfile_error import DockerfileError, printable
from jaula.images.dockerfile.dockerfile_words import fields
from jaula.images.dockerfile.instructions.run_mount import parse_mount
from jaula.spec import signals

_PROTOCOLS = ("tcp", "udp", "sctp")


def parse_ports(text: str) -> tuple[range, str]:
    """Parse a port or range of EXPOSE: ``80``, ``80/udp``, ``8000-8010/tcp``.

    As in Docker, an address and port of the host in front of it (``127.0.0.1:8080:80``) are
    ignored: they have no meaning in EXPOSE, but Dockerfiles contain them.

    :raises DockerfileError: if it is not valid.
    """
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    first, dash, last = number.rpartition(":")[2].partition("-")
    begin = _port(first)
    end = _port(last) if dash else begin
    if protocol not in _PROTOCOLS or not 0 < begin <= end:
        raise DockerfileError(
            f"invalid containerPort: {printable(text)}", hint="use 80, 80/udp or 8000-8010"
        )
    return range(begin, end + 1), protocol


def _port(text: str) -> int:
    """Return a port number, or 0 if it is not valid."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    return number if number < 65536 else 0


_MAX_DEPTH = 32
"""Nested substitutions."""

_MAX_RESULT = 8 << 20
"""Characters of a result: a here-document may be as long as a Dockerfile, more with values."""

_PARAMETERS = "@*#?-$!0"
"""The special parameters of a shell; they are never set here."""


class Substitution:
    """Replaces variables in words.

    ``escape`` is the escape character. ``quotes`` False keeps quotes, as in a here-document.
    ``unset`` collects the names of variables without a value.

    Source: the Dockerfile reference, section 'Environment replacement', and POSIX ``sh`` 2.2 and
    2.6.2 where it is silent. Command substitution, arithmetic and field splitting are not
    supported. Depth, length of the result and work are limited.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        escape: str = "\\",
        *,
        quotes: bool = True,
        budget: BuildBudget | None = None,
    ) -> None:
        self._variables = variables
        self._escape = escape
        self._quotes = quotes
        self._special = escape + ("$\"'" if quotes else "$")
        self.unset: dict[str, None] = {}
        self._text = ""
        self._at = 0
        self.budget = budget or BuildBudget()

    def without_quotes(self) -> Substitution:
        """Return a substitution for the content of a here-document.

        There the escape is always a backslash.
        """
        substitution = Substitution(self._variables, quotes=False, budget=self.budget)
        substitution.unset = self.unset
        return substitution

    def __call__(self, word: str) -> str:
        """Return the word with its variables replaced.

        :raises DockerfileError: if that fails; the message contains the word.
        """
        quoted = self._quotes and ('"' in word or "'" in word)
        if "$" not in word and self._escape not in word and not quoted:
            return word
        self._text, self._at = word, 0
        try:
            result = self._until("", 0, keep=False)
            self.budget.result(len(result))
            return result
        except DockerfileError as error:
            first_line = printable(word.partition("\n")[0])
            raise DockerfileError(f'failed to process "{first_line}": {error.reason}') from None

    def _until(self, stop: str, depth: int, *, keep: bool) -> str:
        """Return the value of the text up to ``stop``, and skip ``stop``.

        ``keep`` keeps escapes: the text is a pattern, which interprets them itself.
        """
        if depth > _MAX_DEPTH:
            raise DockerfileError(f"more than {_MAX_DEPTH} nested substitutions")
        text, size, special = self._text, len(self._text), self._special + stop
        parts: list[str] = []
        length = 0
        while self._at < size:
            begin = at = self._at
            while at < size and text[at] not in special:
                at += 1
            if at > begin:
                part = text[begin:at]
                self._at = at
            else:
                char = text[at]
                self._at = at + 1
                if char == stop:
                    return "".join(parts)
                if char == "$":
                    part = self._dollar(depth, keep=keep)
                elif char == self._escape:
                    following = text[at + 1 : at + 2]
                    self._at += 1
                    part = (char if keep else "") + following
                elif char == "'":
                    part = self._single()
                else:
                    part = self._double(depth, keep=keep)
            length += len(part)
            if length > _MAX_RESULT:
                raise DockerfileError(f"the result is longer than {_MAX_RESULT} characters")
            parts.append(part)
        if stop:
            raise DockerfileError(
                "syntax error: missing '/' in ${}" if stop == "/" else "syntax error: missing '}'"
            )
        return "".join(parts)

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise DockerfileError(
                "unexpected end of statement while looking for matching single-quote"
            )
        part = self._text[self._at : end]
        self._at = end + 1
        return part

    def _double(self, depth: int, *, keep: bool) -> str:
        text, size, escape = self._text, len(self._text), self._escape
        parts: list[str] = []
        while self._at < size:
            char = text[self._at]
            self._at += 1
            if char == '"':
                return "".join(parts)
            if char == "$":
                parts.append(self._dollar(depth, keep=keep))
                continue
            if char == escape:
                following = text[self._at : self._at + 1]
                if following and following in '"$' + escape:
                    self._at += 1
                    char = (char if keep else "") + following
            parts.append(char)
        raise DockerfileError("unexpected end of statement while looking for matching double-quote")

    def _name(self) -> str:
        text, begin = self._text, self._at
        first = text[begin : begin + 1]
        at = begin
        if first.isdecimal():
            while text[at : at + 1].isdecimal():
                at += 1
        elif first and first in _PARAMETERS:
            at += 1
        else:
            while at < len(text) and (text[at].isalnum() or text[at] == "_"):
                at += 1
        self._at = at
        return text[begin:at]

    def _value(self, name: str) -> str | None:
        value = self._variables.get(name)
        if value is None:
            self.unset[name] = None
        return value

    def _dollar(self, depth: int, *, keep: bool) -> str:
        """Return the value of the expression after a ``$``."""
        text = self._text
        if text[self._at : self._at + 1] != "{":
            name = self._name()
            return (self._value(name) or "") if name else "$"
        self._at += 1
        name = self._name()
        sign = text[self._at : self._at + 1]
        self._at += 1
        if not sign:
            raise DockerfileError("syntax error: missing '}'")
        if not name:
            raise DockerfileError("syntax error: bad substitution")
        if sign == "}":
            return self._value(name) or ""
        if sign == "/":
            return self._replace(name, depth)
        empty_is_set = sign != ":"
        if not empty_is_set:
            sign = text[self._at : self._at + 1]
            self._at += 1
        if sign in ("#", "%") and empty_is_set:
            return self._cut(name, sign, depth)
        if not sign or sign not in "-+?":
            modifier = sign if empty_is_set else f":{sign}"
            raise DockerfileError(f"unsupported modifier ({printable(modifier)}) in substitution")
        word = self._until("}", depth + 1, keep=keep)
        value = self._variables.get(name)
        is_set = value is not None and (empty_is_set or value != "")
        if sign == "+":
            return word if is_set else ""
        if is_set:
            return value or ""
        if sign == "?":
            what = "unset" if value is None else "empty"
            raise DockerfileError(f"{name}: {printable(word) or f'is not allowed to be {what}'}")
        return word

    def _cut(self, name: str, sign: str, depth: int) -> str:
        """Evaluate ``${name#pattern}`` and ``${name%pattern}``.

        ``##`` and ``%%`` remove the longest match.
        """
        longest = self._text[self._at : self._at + 1] == sign
        if longest:
            self._at += 1
        pattern = self._pattern("}", depth)
        value = self._value(name) or ""
        self.budget.pattern(len(value), pattern.length)
        if sign == "#":
            return value[pattern.prefix(value, longest=longest) :]
        return value[: len(value) - pattern.suffix(value, longest=longest)]

    def _replace(self, name: str, depth: int) -> str:
        """Evaluate ``${name/pattern/text}`` and ``${name//pattern/text}``."""
        every = self._text[self._at : self._at + 1] == "/"
        if every:
            self._at += 1
        pattern = self._pattern("/", depth)
        text = self._until("}", depth + 1, keep=False)
        value = self._value(name) or ""
        self.budget.pattern(len(value), pattern.length)
        result = pattern.replace(value, text, every=every, limit=_MAX_RESULT)
        if result is None:
            raise DockerfileError(f"the result is longer than {_MAX_RESULT} characters")
        return result

    def _pattern(self, stop: str, depth: int) -> shell_glob.Glob:
        return shell_glob.Glob(self._until(stop, depth + 1, keep=True))


_MAX_CONTENT = 16 << 20
"""Characters of the here-documents of one instruction."""


def expand(
    instruction: Instruction,
    variables: Mapping[str, str],
    escape: str = "\\",
    *,
    unset: set[str] | None = None,
    name: str = "Dockerfile",
    budget: BuildBudget | None = None,
) -> Instruction:
    """Return the instruction with its variables replaced, and its canonical text.

    ``unset`` receives the names of variables without a value. ``name`` is the file, for errors.
    ``budget`` is that of the build.

    :raises DockerfileError: if the result is not valid.
    """
    substitute = Substitution(variables, escape, budget=budget)
    try:
        expanded = substitute_variables(instruction, substitute)
    except DockerfileError as error:
        raise error.at(name, instruction.location.first, [instruction.headline]) from None
    if unset is not None:
        unset.update(substitute.unset)
    if expanded is instruction:
        return instruction
    return msgspec.structs.replace(expanded, source=format.expanded_text(expanded))


def substitute_variables(instruction: Instruction, substitute: Substitution) -> Instruction:
    """Return the instruction with its variables replaced; its text stays unchanged.

    :raises DockerfileError: without a location, if the result is not valid.
    """
    handler = _HANDLERS.get(type(instruction))
    return instruction if handler is None else handler(instruction, substitute)


def _pairs(instruction: Env | Label, substitute: Substitution) -> Instruction:
    pairs: Pairs = tuple((substitute(name), substitute(value)) for name, value in instruction.pairs)
    for name, _ in pairs:
        if not name:
            raise DockerfileError(f"{instruction.word} names can not be blank")
        if "=" in name and isinstance(instruction, Env):
            raise DockerfileError(f"ENV: {name[:80]!r} is not a valid name: it contains =")
    return msgspec.structs.replace(instruction, pairs=pairs)


def _arg(instruction: Arg, substitute: Substitution) -> Instruction:
    pairs = tuple(
        (substitute(name), None if default is None else substitute(default))
        for name, default in instruction.pairs
    )
    if not all(name for name, _ in pairs):
        raise DockerfileError("ARG names can not be blank")
    return msgspec.structs.replace(instruction, pairs=pairs)


def _copy(instruction: Copy | Add, substitute: Substitution) -> Instruction:
    fields: dict[str, Any] = {
        "sources": _each(instruction.sources, substitute),
        "target": substitute(instruction.target),
        "chown": substitute(instruction.chown),
        "chmod": substitute(instruction.chmod),
        "excludes": _each(instruction.excludes, substitute),
    }
    if not fields["target"]:
        raise DockerfileError(
            f"{instruction.word} has an empty destination: {instruction.target[:80]}"
        )
    if isinstance(instruction, Add):
        fields["checksum"] = substitute(instruction.checksum)
    if instruction.heredocs:
        fields["heredocs"] = _expand_heredocs(instruction.heredocs, substitute)
    return msgspec.structs.replace(instruction, **fields)


def _expand_heredocs(heredocs: Sequence[Heredoc], substitute: Substitution) -> tuple[Heredoc, ...]:
    substitute_text = substitute.without_quotes()
    expanded = tuple(
        msgspec.structs.replace(heredoc, content=substitute_text(heredoc.content))
        if heredoc.expand
        else heredoc
        for heredoc in heredocs
    )
    if sum(len(heredoc.content) for heredoc in expanded) > _MAX_CONTENT:
        raise DockerfileError(f"the here-documents have more than {_MAX_CONTENT} characters")
    return expanded


def _each(words: Sequence[str], substitute: Substitution) -> tuple[str, ...]:
    return tuple(substitute(word) for word in words)


def _expose(instruction: Expose, substitute: Substitution) -> Instruction:
    listed = tuple(port for word in instruction.ports for port in fields(substitute(word)))
    substitute.budget.ports(sum(len(parse_ports(text)[0]) for text in listed))
    return msgspec.structs.replace(instruction, ports=listed)


def _signal(instruction: StopSignal, substitute: Substitution) -> Instruction:
    name = substitute(instruction.signal)
    try:
        signals.parse(name)
    except InvalidRequest:
        raise DockerfileError(
            f"invalid signal: {printable(name)}", hint="use SIGTERM, TERM or 15"
        ) from None
    return msgspec.structs.replace(instruction, signal=name)


def _run(instruction: Run, substitute: Substitution) -> Instruction:
    texts = [flag.partition("=")[2] for flag in instruction.flags if flag.startswith("--mount=")]
    return msgspec.structs.replace(
        instruction, mounts=tuple(parse_mount(text, substitute) for text in texts)
    )


def _one(field: str) -> Callable[[Any, Substitution], Instruction]:
    def handler(instruction: Instruction, substitute: Substitution) -> Instruction:
        value = substitute(getattr(instruction, field))
        if not value and field != "user":
            raise DockerfileError(
                f"{instruction.word} has an empty value: {getattr(instruction, field)}"
            )
        return msgspec.structs.replace(instruction, **{field: value})

    return handler


def _volume(instruction: Volume, substitute: Substitution) -> Instruction:
    paths = _each(instruction.paths, substitute)
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return msgspec.structs.replace(instruction, paths=paths)


_HANDLERS: dict[type[Instruction], Callable[[Any, Substitution], Instruction]] = {
    Add: _copy,
    Arg: _arg,
    Copy: _copy,
    Env: _pairs,
    Expose: _expose,
    Label: _pairs,
    Run: _run,
    StopSignal: _signal,
    User: _one("user"),
    Volume: _volume,
    Workdir: _one("path"),
}
