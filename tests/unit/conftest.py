"""Fixtures of unit tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaula.state.database import Database


@pytest.fixture
def open_database() -> Iterator[Callable[[Path], Database]]:
    """Yield a function that opens a database; the test's end closes it.

    A connection of sqlite3 is in a reference cycle with its cache of statements, so it stays open
    without its last name until the garbage collector runs.
    """
    with contextlib.ExitStack() as databases:

        def opened(path: Path) -> Database:
            database = Database(path)
            databases.callback(database.close)
            return database

        yield opened
