"""Doing one thing to each of several objects named on the command line."""

from __future__ import annotations

import sys

from jaula.cli.failure import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def each(names: Iterable[str], action: Callable[[str], object], *, echo: bool = True) -> int:
    """Call ``action`` for every name and print the name; 1 where the engine refused one of them."""
    status = 0
    for name in names:
        try:
            action(name)
        except EngineError as error:
            sys.stdout.flush()
            sys.stderr.write(error.message + "\n")
            status = 1
        else:
            if echo:
                print(name)
    return status
