"""Names that a mistyped word may mean: commands, flags, objects of the engine.

The hint is the client's: the engine's answers have Docker's words. Hints about objects are printed
on a terminal only, as a script may compare standard error.
"""

from __future__ import annotations

import sys
from posix import isatty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaula.cli.cli_errors import EngineError

NOT_FOUND = 404
LIMIT = 3  # names in one hint
# Beginnings of the engine's messages: the kind of the object.
_MESSAGES = (
    ("No such container: ", "container"),
    ("No such image: ", "image"),
    ("Error: No such object: ", "object"),
    ("No such object: ", "object"),
    ("network ", "network"),
    ("get ", "volume"),
    ("No such volume: ", "volume"),
)


def distance(one: str, other: str, limit: int) -> int:
    """Return the number of edits between two words: insert, delete, replace, swap neighbours.

    More than ``limit`` edits are ``limit + 1``. Pure.
    """
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return row[-1]


def close(word: str, names: Iterable[str]) -> list[str]:
    """Return the names that are close to ``word``, the closest first. Pure.

    One edit for each three characters is close, at least one and at most three. A name of one or
    two characters is close to no other.
    """
    if len(word) < 3:
        return []
    limit = min(max(len(word) // 3, 1), 3)
    lower = word.lower()
    rows = [(distance(lower, name.lower(), limit), name) for name in set(names) if name != word]
    rows = sorted(row for row in rows if row[0] <= limit)
    return [name for edits, name in rows if edits <= rows[0][0] + 1][:LIMIT]


def flags(name: str, names: Iterable[str]) -> list[str]:
    """Return the flags that ``name`` may mean: close ones, and those that begin with it. Pure."""
    listed = list(names)
    found = close(name, listed)
    found += [word for word in sorted(listed) if word.startswith(name) and word not in found]
    return found[:LIMIT]


def print_object_hint(error: EngineError, host: str) -> None:
    """Print the names that a name in the error may mean, if standard error is a terminal."""
    if error.code == NOT_FOUND and isatty(2) and (hint := _object_hint(error.reason, host)):
        sys.stderr.write(hint + "\n")


def print_image_hint(image: str, host: str) -> None:
    """Print the local images that ``image`` may mean, if standard error is a terminal."""
    if isatty(2) and (found := close(image, _names("image", host))):
        sys.stderr.write(f"Did you mean {' or '.join(found)}?\n")


def _object_hint(message: str, host: str) -> str:
    for beginning, kind in _MESSAGES:
        if message.startswith(beginning):
            name = message.removeprefix(beginning).removesuffix(" not found")
            name = name.partition(": ")[0] if kind == "volume" else name
            found = close(name.removesuffix(":latest"), _names(kind, host))
            return f"Did you mean {' or '.join(found)}?" if found else ""
    return ""


def _names(kind: str, host: str) -> list[str]:
    """Return the names of the engine's objects; [] if it does not answer, which was reported."""
    from jaula.cli.cli_errors import CliError
    from jaula.cli.client.api_client import Client

    names: list[str] = []
    try:
        client = Client(host)
        if kind in ("container", "object"):
            for row in client.get("/containers/json", (("all", "1"),)):
                names += [name.removeprefix("/") for name in row["Names"]]
        if kind in ("image", "object"):
            for row in client.get("/images/json"):
                names += [name.removesuffix(":latest") for name in row["RepoTags"] or ()]
        if kind in ("network", "object"):
            names += [row["Name"] for row in client.get("/networks")]
        if kind in ("volume", "object"):
            names += [row["Name"] for row in client.get("/volumes")["Volumes"] or ()]
    except CliError:
        return []
    return names
