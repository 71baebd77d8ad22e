"""Run one action for each object named on the command line."""

from __future__ import annotations

import sys
from itertools import islice

from jaula.cli.cli_errors import EngineError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jaula.cli.client.api_client import Query
    from jaula.cli.client.http_client import Connection


NOT_FOUND = 404
AT_ONCE = 50  # requests, as many as docker sends


def each(
    names: Iterable[str],
    action: Callable[[str], object],
    *,
    echo: bool = True,
    ignored: int = 0,
) -> int:
    """Call ``action`` for every name and print the name.

    Return the exit status: 1 if the engine refused an action, else 0. The other names are still
    processed. A refusal with the HTTP status ``ignored`` is not an error.
    """
    status = 0
    for name in names:
        try:
            action(name)
        except EngineError as error:
            if error.code == ignored:
                continue
            sys.stdout.flush()
            sys.stderr.write(error.message + "\n")
            if error.code == NOT_FOUND:
                from jaula.cli import suggestion

                suggestion.print_object_hint(error, Settings.host)
            status = 1
        else:
            if echo:
                print(name)
    return status


def each_container(
    names: Iterable[str], action: str, query: Query = (), *, ignored: int = 0
) -> int:
    """POST ``action`` (the last word of the path) for every container.

    Return the exit status of :func:`each`.
    """
    client = Client(Settings.host)
    return each(
        names,
        lambda name: client.request("POST", f"/containers/{quote(name)}/{action}", query),
        ignored=ignored,
    )


def each_container_at_once(
    names: Iterable[str], action: str, query: Query = (), *, ignored: int = 0
) -> int:
    """POST ``action`` for many containers at a time, and print the names in their order.

    An address of ssh gets one request after the other, since each connection is a process there.
    Return the exit status of :func:`each`.
    """
    client = Client(Settings.host)
    limit = 1 if client.address.text.startswith("ssh://") else AT_ONCE
    names = list(names)
    unsent = iter(names)
    connections: list[Connection] = []

    def answer(_name: str) -> None:
        for name in islice(unsent, limit - len(connections)):
            path = f"/containers/{quote(name)}/{action}"
            connections.append(client.send("POST", path, query))
        client.answer(connections.pop(0))

    return each(names, answer, ignored=ignored)
