"""Parser of templates: from text to nodes, which :mod:`jaula.cli.output.template` evaluates.

Follows Go's text/template for the subset listed there. A node is a tuple that begins with its kind:
``text``, ``print``, ``if``, ``range``, ``with``, and in pipelines ``value``, ``call`` and others.
"""

from __future__ import annotations

from jaula.cli.cli_errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Node = tuple[Any, ...]

SPACE = " \t\r\n"


def bad(reason: str) -> CliError:
    """Return the exception for an error in a template."""
    return CliError(f"template parsing error: {reason}")


def read(text: str) -> list[Node]:
    """Parse a template into nodes.

    :raises CliError: when the template is invalid.
    """
    nodes, _ = _block(_split_actions(text), 0, top=True)
    return nodes


def _split_actions(text: str) -> list[tuple[str, Any]]:
    """Split a template into text and actions: ('text', str) or ('action', tokens)."""
    segments: list[tuple[str, Any]] = []
    position, trim = 0, False
    while position < len(text):
        start = text.find("{{", position)
        plain = text[position:] if start < 0 else text[position:start]
        if trim:
            plain = plain.lstrip(SPACE)
        if start < 0:
            segments.append(("text", plain))
            break
        inner, end = start + 2, _end_of_action(text, start + 2)
        if text[inner : inner + 2] in ("- ", "-\t", "-\n"):
            plain, inner = plain.rstrip(SPACE), inner + 1
        trim = text[end - 2 : end] in (" -", "\t-", "\n-")
        segments.append(("text", plain))
        body = text[inner : end - 1 if trim else end].strip(SPACE)
        if not body.startswith("/*"):
            segments.append(("action", _tokens(body)))
        position = end + 2
    return segments


def _end_of_action(text: str, position: int) -> int:
    quote = ""
    while position < len(text):
        letter = text[position]
        if quote:
            if letter == "\\" and quote == '"':
                position += 1
            elif letter == quote:
                quote = ""
        elif letter in "\"'`":
            quote = letter
        elif text.startswith("}}", position):
            return position
        position += 1
    raise bad("unclosed action")


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    while position < len(text):
        letter = text[position]
        if letter in SPACE:
            position += 1
            continue
        start = position
        if letter in "\"`'":
            position += 1
            while position < len(text) and text[position] != letter:
                position += 2 if text[position] == "\\" and letter != "`" else 1
            position += 1
            if position > len(text):
                raise bad(f"unterminated string in {text!r}")
        elif letter in "(),|":
            position += 1
        elif text.startswith(":=", position):
            position += 2
        elif letter == "=":
            position += 1
        else:
            while position < len(text) and text[position] not in SPACE + '(),|"`=':
                if text.startswith(":=", position):
                    break
                position += 1
            if position == start:
                raise bad(f"unexpected {letter!r} in {text!r}")
        tokens.append(text[start:position])
    return tokens


OPENING = ("if", "range", "with")


def _block(
    segments: list[tuple[str, Any]], position: int, *, top: bool = False
) -> tuple[list[Node], int]:
    """Return the nodes up to ``else`` or ``end``, and the position of that piece."""
    nodes: list[Node] = []
    while position < len(segments):
        kind, value = segments[position]
        if kind == "text":
            if value:
                nodes.append(("text", value))
            position += 1
            continue
        if not value:
            raise bad("missing value for command")
        word = value[0]
        if word in ("end", "else"):
            if top:
                raise bad(f"unexpected {{{{{word}}}}}")
            return nodes, position
        if word in OPENING:
            node, position = _branch(segments, position, value)
            nodes.append(node)
            continue
        nodes.append(("print", *_parse_declaration(value)))
        position += 1
    if not top:
        raise bad("unexpected EOF: {{end}} is missing")
    return nodes, position


def _branch(segments: list[tuple[str, Any]], position: int, tokens: list[str]) -> tuple[Node, int]:
    kind = tokens[0]
    names, pipeline = _parse_declaration(tokens[1:])
    body, position = _block(segments, position + 1)
    other: list[Node] = []
    words = segments[position][1]
    if words[0] == "else":
        if len(words) > 1:
            node, position = _branch(segments, position, words[1:])
            return (kind, names, pipeline, body, [node]), position
        other, position = _block(segments, position + 1)
        if segments[position][1][0] != "end":
            raise bad("expected end; found {{else}}")
    return (kind, names, pipeline, body, other), position + 1


def _parse_declaration(tokens: list[str]) -> tuple[list[str], Node]:
    """Return the variables that ``:=`` or ``=`` sets, and the pipeline."""
    names: list[str] = []
    for sign in (":=", "="):
        if sign in tokens:
            at = tokens.index(sign)
            names = [token for token in tokens[:at] if token != ","]
            if not names or any(not name.startswith("$") for name in names):
                raise bad(f"unexpected {sign!r} in operand")
            tokens = tokens[at + 1 :]
            break
    pipeline, end = _pipeline(tokens, 0)
    if end != len(tokens):
        raise bad(f"unexpected {tokens[end]!r} in operand")
    return names, pipeline


def _pipeline(tokens: list[str], position: int) -> tuple[Node, int]:
    commands: list[list[Node]] = [[]]
    while position < len(tokens):
        token = tokens[position]
        if token == ")":
            break
        if token == "|":
            if not commands[-1]:
                raise bad("missing value for command")
            commands.append([])
            position += 1
        elif token == "(":
            inner, position = _pipeline(tokens, position + 1)
            if position >= len(tokens):
                raise bad("unclosed left paren")
            position += 1
            node = inner
            if position < len(tokens) and tokens[position].startswith("."):
                node = ("of", inner, tokens[position].strip(".").split("."))
                position += 1
            commands[-1].append(node)
        else:
            commands[-1].append(_operand(token))
            position += 1
    if not commands[-1]:
        raise bad("missing value for command")
    return ("pipe", commands), position


def _operand(token: str) -> Node:
    first = token[0]
    if first in "\"'":
        return ("value", _string(token))
    if first == "`":
        return ("value", token[1:-1])
    if token == ".":
        return ("dot",)
    if first == ".":
        return ("field", token[1:].split("."))
    if first == "$":
        name, *fields = token.split(".")
        return ("variable", name, fields)
    if token in ("true", "false"):
        return ("value", token == "true")
    if token == "nil":
        return ("value", None)
    try:
        return ("value", int(token, 0))
    except ValueError:
        pass
    try:
        return ("value", float(token))
    except ValueError:
        pass
    from jaula.cli.output.template.functions import FUNCTIONS

    if token not in FUNCTIONS:
        raise bad(f'function "{token}" not defined')
    return ("call", token)


def _string(token: str) -> str:
    escapes = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}
    text, out, position = token[1:-1], "", 0
    while position < len(text):
        if text[position] == "\\" and position + 1 < len(text):
            position += 1
            out += escapes.get(text[position], "\\" + text[position])
        else:
            out += text[position]
        position += 1
    return out
