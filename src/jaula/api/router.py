"""From a method and a path to a handler, with a few dictionary look-ups and no pattern matching.

A route is a method and a template: ``/literal/path``, ``/noun/{id}``, ``/noun/{id}/verb`` or
``/noun/*`` (any method, everything at and below the noun). ``{id}`` is one segment; ``{name...}``
is one or more, since the names of images hold slashes; a verb may have a slash in it. A literal
path wins over a template, as in Docker's router.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaula.api.http.errors import PageNotFound
from jaula.api.http.request import Handler

Routes = Iterable[tuple[str, str, Handler]]

PREFIX = "jaula"
"""The first segment of routes that Docker does not have; the noun is the second."""


class Router:
    """The table of every route."""

    def __init__(self, routes: Routes) -> None:
        self._literal: dict[tuple[str, str], Handler] = {}
        self._single: dict[tuple[str, str, str], Handler] = {}  # method, noun, verb or ""
        self._greedy: dict[tuple[str, str, str], Handler] = {}
        self._below: dict[str, Handler] = {}
        for method, template, handler in routes:
            self._add(method, template, handler)

    def _add(self, method: str, template: str, handler: Handler) -> None:
        if template.endswith("/*"):
            self._below[template[1:-2]] = handler
            return
        if "{" not in template:
            self._literal[method, template] = handler
            return
        noun, _, rest = template[1:].partition("/{")
        variable, _, verb = rest.partition("}")
        table = self._greedy if variable.endswith("...") else self._single
        table[method, noun, verb.removeprefix("/")] = handler

    def find(self, method: str, path: str) -> tuple[Handler, str]:
        """The handler of a decoded path (without its version) and the variable part.

        Raises :class:`PageNotFound`, for a wrong method too, as Docker does.
        """
        literal = self._literal.get((method, path))
        if literal is not None:
            return literal, ""
        _, *rest = path.split("/")
        noun = rest.pop(0) if rest else ""
        if noun == PREFIX and rest:
            noun = f"{noun}/{rest.pop(0)}"
        below = self._below.get(noun)
        if below is not None:
            return below, "/".join(rest)
        found = None
        if rest and rest[0]:
            found = self._single.get((method, noun, "/".join(rest[1:]))), rest[0]
            if found is None or found[0] is None:
                found = self._find_greedy(method, noun, rest)
        if found is None or found[0] is None:
            raise PageNotFound
        return found[0], found[1]

    def _find_greedy(self, method: str, noun: str, rest: list[str]) -> tuple[Handler | None, str]:
        if len(rest) > 1:
            handler = self._greedy.get((method, noun, rest[-1]))
            if handler is not None and rest[-1]:
                return handler, "/".join(rest[:-1])
        return self._greedy.get((method, noun, "")), "/".join(rest)
