"""The subset of Go's text/template for ``--format``.

Actions ``{{...}}`` with ``-`` for trimming: fields (``.State.Pid``), ``$variables``, literals,
pipelines, parentheses, ``if``, ``range`` and ``with`` (each with ``else``), ``end``, comments, Go's
functions (``and or not eq ne lt le gt ge index len print printf println slice``) and Docker's
(``json split join title lower upper pad truncate``).

A document consists of dicts, lists, strings, numbers, booleans and None. A callable value of a dict
is called on demand.
"""

from __future__ import annotations

from jaula.cli.output.template.functions import FUNCTIONS, MISSING, format_value
from jaula.cli.output.template.template_parser import bad, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.cli.output.template.template_parser import Node


STRICT = "strict"  # stored with the variables, whose names begin with $


class Template:
    """A parsed template.

    A ``strict`` template refuses to print a missing key, except below user-defined keys (labels).

    :raises CliError: when the template is invalid.
    """

    def __init__(self, text: str, *, strict: bool = False) -> None:
        self.nodes = read(text)
        self._names = {STRICT: True} if strict else {}

    def render(self, document: Any) -> str:
        """Return the text for one document.

        :raises CliError: when the template does not fit the document.
        """
        out: list[str] = []
        _run(self.nodes, document, {**self._names, "$": document}, out)
        return "".join(out)


def unescape(text: str) -> str:
    """Replace ``\\t`` and ``\\n`` of a template from the command line."""
    return text.replace("\\t", "\t").replace("\\n", "\n")


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
                    _raise_missing(node[2])
                out.append(format_value(value))
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


def _raise_missing(pipeline: Node) -> None:
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
        raise bad(f"range can't iterate over {format_value(value)}")
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
    value = _evaluate(first, dot, names) if not arguments else _method(first, dot, names)
    if arguments:
        if not callable(value):
            raise bad(f"can't give argument to non-function {format_value(value)}")
        return value(*arguments)
    return value


def _method(node: Node, dot: Any, names: dict[str, Any]) -> Any:
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
            raise bad(f"can't evaluate field {name} in {format_value(value)}")
        value = value.get(name, MISSING)
        if callable(value):
            value = value()
    return value


def _call(name: str, arguments: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise bad(f"error calling {name}: {error}") from None
