"""Run one action for each object named on the command line."""

from __future__ import annotations

import sys

from jaula.cli.client.client import Client, quote
from jaula.cli.errors import EngineError
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jaula.cli.client.client import Query


NOT_FOUND = 404


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
