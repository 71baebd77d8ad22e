"""The router: from a method and a path to an API version and a handler.

A route is a method and a template: ``/literal/path``, ``/noun/{id}``, ``/noun/{id}/verb``,
``/noun/{id}/parts/{part}`` or ``/noun/*`` (any method; the noun itself and everything below it).
``{id}`` and ``{part}`` are one segment each; a handler gets both as ``id/part``.
``{name...}`` is one or more, since names of images contain slashes. A verb may contain a slash. A
literal path wins over a template, as in Docker's router. A lookup needs a few dictionary accesses
and no pattern matching.

The first segment of a path may name a version of the API; without one the newest is meant. Source:
moby ``api/server/middleware/version.go``. The messages are Docker's, since clients match them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jaula import __version__
from jaula.api.http import response
from jaula.api.http.http_errors import PageNotFound
from jaula.api.http.http_request import Handler, Request
from jaula.api.http.response import Answer
from jaula.errors import InvalidRequest

MAXIMUM = (1, 55)
MINIMUM = (1, 24)

SERVER = f"jaula/{__version__} (linux)"

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"Api-Version", b"1.55"),
    (b"Docker-Experimental", b"true"),
    (b"Ostype", b"linux"),
    (b"Server", SERVER.encode("ascii")),
)
"""The headers of every answer, also to hijacked requests.

Docker's client sends requests about checkpoints only to an engine with experimental features.
"""

Routes = Iterable[tuple[str, str, Handler]]

PREFIX = "jaula"
"""The first segment of routes that Docker does not have; the second one is the noun."""


async def _options(request: Request) -> Answer:
    """Answer OPTIONS for every path, as Docker does."""
    await request.ignore_body()
    return response.OK


def _no_routes(noun: str) -> Routes:
    return ()


class Router:
    """The table of all routes.

    ``load`` returns further routes of one of ``nouns``, at the first request of the noun for which
    there is none before.
    """

    def __init__(
        self,
        routes: Routes,
        nouns: Iterable[str] = (),
        load: Callable[[str], Routes] = _no_routes,
    ) -> None:
        self._load = load
        self._unloaded = set(nouns)
        self._literal: dict[tuple[str, str], Handler] = {}
        self._single: dict[tuple[str, str, str], Handler] = {}  # method, noun, verb or ""
        self._parts: dict[tuple[str, str, str], Handler] = {}  # method, noun, kind of part
        self._greedy: dict[tuple[str, str, str], Handler] = {}
        self._below: dict[str, Handler] = {}
        self._templates: dict[Handler, str] = {}
        self._add_all(routes)

    def _add_all(self, routes: Routes) -> None:
        for method, template, handler in routes:
            self._add(method, template, handler)
            self._templates.setdefault(handler, template)

    def _add(self, method: str, template: str, handler: Handler) -> None:
        if template.endswith("/*"):
            self._below[template[1:-2]] = handler
            return
        if "{" not in template:
            self._literal[method, template] = handler
            return
        noun, _, rest = template[1:].partition("/{")
        variable, _, verb = rest.partition("}")
        if verb.endswith("}"):
            self._parts[method, noun, verb[1:].partition("/")[0]] = handler
            return
        table = self._greedy if variable.endswith("...") else self._single
        table[method, noun, verb.removeprefix("/")] = handler

    def template(self, handler: Handler) -> str:
        """Return the first template of a handler; ``*`` for one of every path."""
        return self._templates.get(handler, "*")

    def find(self, method: str, path: str) -> tuple[Handler, str]:
        """Return the handler of a decoded path (without its version) and the variable part.

        :raises PageNotFound: when no route matches. As in Docker, also for a wrong method.
        """
        literal = self._literal.get((method, path))
        if literal is not None:
            return literal, ""
        if method == "OPTIONS":
            return _options, ""
        _, *rest = path.split("/")
        noun = rest.pop(0) if rest else ""
        if noun == PREFIX and rest:
            noun = f"{noun}/{rest.pop(0)}"
        below = self._below.get(noun)
        if below is not None:
            return below, "/".join(rest)
        handler, name = None, ""
        if rest and rest[0]:
            handler, name = self._single.get((method, noun, "/".join(rest[1:]))), rest[0]
            if handler is None and len(rest) == 3 and rest[2]:
                handler, name = self._parts.get((method, noun, rest[1])), f"{rest[0]}/{rest[2]}"
        if handler is None and noun in self._unloaded:
            self._unloaded.remove(noun)
            self._add_all(self._load(noun))
            return self.find(method, path)
        if handler is None and rest and rest[0]:
            handler, name = self._find_greedy(method, noun, rest)
        if handler is None:
            raise PageNotFound
        return handler, name

    def _find_greedy(self, method: str, noun: str, rest: list[str]) -> tuple[Handler | None, str]:
        if len(rest) > 1:
            handler = self._greedy.get((method, noun, rest[-1]))
            if handler is not None and rest[-1]:
                return handler, "/".join(rest[:-1])
        return self._greedy.get((method, noun, "")), "/".join(rest)


def parse_version(segment: str) -> tuple[int, int] | None:
    """Return the version in the first segment of a path (``v1.55``); None if it is not one."""
    if segment[:1] != "v":
        return None
    major, dot, minor = segment[1:].partition(".")
    if not dot or not (major + minor).isascii() or len(segment) > 16:
        return None
    if not (major.isdecimal() and minor.isdecimal()):
        return None
    return int(major), int(minor)


def check_version(version: tuple[int, int]) -> None:
    """Check that the engine supports a version.

    :raises InvalidRequest: when the client is too old or too new.
    """
    text = f"{version[0]}.{version[1]}"
    if version < MINIMUM:
        raise InvalidRequest(
            f"client version {text} is too old. Minimum supported API version is "
            f"{MINIMUM[0]}.{MINIMUM[1]}, please upgrade your client to a newer version"
        )
    if version > MAXIMUM:
        raise InvalidRequest(
            f"client version {text} is too new. Maximum supported API version is "
            f"{MAXIMUM[0]}.{MAXIMUM[1]}"
        )
