"""The part of Go's text/template that ``--format`` is used with.

Actions ``{{...}}`` with ``-`` for trimming: fields (``.State.Pid``), ``$variables``, literals,
pipelines, parentheses, ``if``, ``range`` and ``with`` (each with ``else``), ``end``, comments,
the functions of Go (``and or not eq ne lt le gt ge index len print printf println slice``) and
Docker's (``json split join title lower upper pad truncate``).

A document is made of dicts, lists, text, numbers, booleans and None; a value of a dict that can be
called is computed when it is asked for.
"""

from __future__ import annotations

from jaula.cli.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Node = tuple[Any, ...]

SPACE = " \t\r\n"


class Missing:
    """The value of a key that is not there."""

    def __str__(self) -> str:
        return "<no value>"

    def __bool__(self) -> bool:
        return False


MISSING = Missing()
STRICT = "strict"  # beside the variables, whose names begin with $


class Template:
    """A template that was read; ``render`` as often as wanted. Raises Failure where it is wrong.

    A ``strict`` one refuses to print a key that is not there, unless it is somebody's own (labels).
    """

    def __init__(self, text: str, *, strict: bool = False) -> None:
        self.nodes, _ = _block(_pieces(text), 0, top=True)
        self._names = {STRICT: True} if strict else {}

    def render(self, document: Any) -> str:
        """The text for one document."""
        out: list[str] = []
        _run(self.nodes, document, {**self._names, "$": document}, out)
        return "".join(out)


def bad(reason: str) -> Failure:
    """The failure that every fault of a template becomes."""
    return Failure(f"template parsing error: {reason}")


def unescape(text: str) -> str:
    """``\\t`` and ``\\n`` of a template given on a command line."""
    return text.replace("\\t", "\t").replace("\\n", "\n")


# -- reading ------------------------------------------------------------------------------------


def _pieces(text: str) -> list[tuple[str, Any]]:
    """Text and actions in turn: ('text', str) or ('action', tokens)."""
    pieces: list[tuple[str, Any]] = []
    position, trim = 0, False
    while position < len(text):
        start = text.find("{{", position)
        plain = text[position:] if start < 0 else text[position:start]
        if trim:
            plain = plain.lstrip(SPACE)
        if start < 0:
            pieces.append(("text", plain))
            break
        inner, end = start + 2, _end_of_action(text, start + 2)
        if text[inner : inner + 2] in ("- ", "-\t", "-\n"):
            plain, inner = plain.rstrip(SPACE), inner + 1
        trim = text[end - 2 : end] in (" -", "\t-", "\n-")
        pieces.append(("text", plain))
        body = text[inner : end - 1 if trim else end].strip(SPACE)
        if not body.startswith("/*"):
            pieces.append(("action", _tokens(body)))
        position = end + 2
    return pieces


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
    pieces: list[tuple[str, Any]], position: int, *, top: bool = False
) -> tuple[list[Node], int]:
    """Nodes up to ``else`` or ``end``, and the position of that piece."""
    nodes: list[Node] = []
    while position < len(pieces):
        kind, value = pieces[position]
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
            node, position = _branch(pieces, position, value)
            nodes.append(node)
            continue
        nodes.append(("print", *_declared(value)))
        position += 1
    if not top:
        raise bad("unexpected EOF: {{end}} is missing")
    return nodes, position


def _branch(pieces: list[tuple[str, Any]], position: int, tokens: list[str]) -> tuple[Node, int]:
    kind = tokens[0]
    names, pipeline = _declared(tokens[1:])
    body, position = _block(pieces, position + 1)
    other: list[Node] = []
    words = pieces[position][1]
    if words[0] == "else":
        if len(words) > 1:
            node, position = _branch(pieces, position, words[1:])
            return (kind, names, pipeline, body, [node]), position
        other, position = _block(pieces, position + 1)
        if pieces[position][1][0] != "end":
            raise bad("expected end; found {{else}}")
    return (kind, names, pipeline, body, other), position + 1


def _declared(tokens: list[str]) -> tuple[list[str], Node]:
    """Variables that ``:=`` or ``=`` sets, and the pipeline."""
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
    if token not in _functions():
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


# -- running ------------------------------------------------------------------------------------


def _run(nodes: list[Node], dot: Any, names: dict[str, Any], out: list[str]) -> None:
    for node in nodes:
        kind = node[0]
        if kind == "text":
            out.append(node[1])
        elif kind == "print":
            value = _evaluate(node[2], dot, names)
            if node[1]:
                names[node[1][0]] = value
            else:
                if value is MISSING and STRICT in names:
                    _refuse_missing(node[2])
                out.append(shown(value))
        elif kind == "range":
            _range(node, dot, names, out)
        else:
            value = _evaluate(node[2], dot, names)
            inner = dict(names)
            if node[1]:
                inner[node[1][0]] = value
            if value:
                _run(node[3], value if kind == "with" else dot, inner, out)
            else:
                _run(node[4], dot, dict(names), out)


def _refuse_missing(pipeline: Node) -> None:
    first = pipeline[1][-1][0]
    path = first[-1] if first[0] in ("field", "of", "variable") else []
    if path and not {"Labels", "Options", "Annotations"} & set(path):
        raise bad(f'map has no entry for key "{path[-1]}" in .{".".join(path)}')


def _range(node: Node, dot: Any, names: dict[str, Any], out: list[str]) -> None:
    _, declared, pipeline, body, other = node
    value = _evaluate(pipeline, dot, names)
    if isinstance(value, dict):
        pairs = [(key, value[key]) for key in sorted(value)]
    elif isinstance(value, (list, tuple)):
        pairs = list(enumerate(value))
    elif isinstance(value, int) and not isinstance(value, bool):
        pairs = [(number, number) for number in range(value)]
    elif value is None or value is MISSING:
        pairs = []
    else:
        raise bad(f"range can't iterate over {shown(value)}")
    if not pairs:
        _run(other, dot, dict(names), out)
    for key, item in pairs:
        inner = dict(names)
        if len(declared) == 2:
            inner[declared[0]], inner[declared[1]] = key, item
        elif declared:
            inner[declared[0]] = item
        _run(body, item, inner, out)


def _evaluate(node: Node, dot: Any, names: dict[str, Any]) -> Any:
    kind = node[0]
    if kind == "pipe":
        value: Any = MISSING
        for number, command in enumerate(node[1]):
            value = _command(command, dot, names, [value] if number else [])
        return value
    if kind == "value":
        return node[1]
    if kind == "dot":
        return dot
    if kind == "field":
        return _fields(dot, node[1])
    if kind == "of":
        return _fields(_evaluate(node[1], dot, names), node[2])
    if kind == "variable":
        if node[1] not in names:
            raise bad(f'undefined variable "{node[1]}"')
        return _fields(names[node[1]], node[2])
    return _call(node[1], [])


def _command(command: list[Node], dot: Any, names: dict[str, Any], last: list[Any]) -> Any:
    first, *rest = command
    arguments = [_evaluate(node, dot, names) for node in rest] + last
    if first[0] == "call":
        return _call(first[1], arguments)
    value = _evaluate(first, dot, names) if not arguments else _uncalled(first, dot, names)
    if arguments:
        if not callable(value):
            raise bad(f"can't give argument to non-function {shown(value)}")
        return value(*arguments)
    return value


def _uncalled(node: Node, dot: Any, names: dict[str, Any]) -> Any:
    if node[0] == "field":
        *path, last = node[1]
        owner = _fields(dot, path)
        return owner.get(last, MISSING) if isinstance(owner, dict) else MISSING
    return _evaluate(node, dot, names)


def _fields(value: Any, names: list[str]) -> Any:
    for name in names:
        if value is None or value is MISSING:
            return MISSING
        if not isinstance(value, dict):
            raise bad(f"can't evaluate field {name} in {shown(value)}")
        value = value.get(name, MISSING)
        if callable(value):
            value = value()
    return value


def shown(value: Any) -> str:
    """A value as Go prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{shown(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(shown(item) for item in value) + "]"
    return str(value)


def _functions() -> dict[str, Callable[..., Any]]:
    from jaula.cli import template_functions

    return template_functions.FUNCTIONS


def _call(name: str, arguments: list[Any]) -> Any:
    try:
        return _functions()[name](*arguments)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise bad(f"error calling {name}: {error}") from None
