"""Features: what is beside the core, and how the core finds it.

A feature is a package of :mod:`jaula.features` with a module ``feature``, whose ``FEATURE`` is one
value. The value names modules of the feature, which are imported when they are first needed. The
core imports nothing of a feature, and works without any. This module is the only one that reads the
table of features.

Models: the registration of containerd's plugins, and the tables of commands of pytest and borg.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PACKAGE = "jaula.features"


class Feature:
    """One feature. All modules are names below the feature's package.

    ``commands`` has the module of each command, by the words that select it. ``aliases`` has other
    words for these commands, and ``groups`` a summary for each first word with several commands.
    ``routes`` has modules with ``ROUTES``, by the nouns of their paths. ``checks`` has modules with
    ``INFO`` and ``check``, which ``jaula verify`` executes too.
    """

    __slots__ = ("aliases", "checks", "commands", "groups", "name", "routes")

    def __init__(
        self,
        name: str,
        *,
        commands: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
        groups: Mapping[str, str] | None = None,
        routes: Mapping[str, Sequence[str]] | None = None,
        checks: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.commands = dict(commands or {})
        self.aliases = dict(aliases or {})
        self.groups = dict(groups or {})
        self.checks = tuple(checks)
        self.routes = {noun: tuple(modules) for noun, modules in (routes or {}).items()}

    def module(self, name: str) -> str:
        """Return the full name of one of the feature's modules."""
        return f"{PACKAGE}.{self.name}.{name}"


def table() -> Mapping[str, tuple[str, ...]]:
    """Return the first words of the commands of each feature, by the feature's name."""
    try:
        found: Mapping[str, tuple[str, ...]] = __import__(PACKAGE, fromlist=("TABLE",)).TABLE
    except ModuleNotFoundError as error:
        if error.name != PACKAGE:
            raise
        return {}
    return found


def load(name: str) -> Feature | None:
    """Return one feature of the table, None if its package is not installed."""
    module = f"{PACKAGE}.{name}.feature"
    try:
        found: Feature = __import__(module, fromlist=("FEATURE",)).FEATURE
    except ModuleNotFoundError as error:
        if error.name not in (f"{PACKAGE}.{name}", module):
            raise
        return None
    return found


def features() -> list[Feature]:
    """Return all installed features, in the order of the table."""
    return [found for name in table() if (found := load(name)) is not None]


def missing_for(word: str) -> str:
    """Return the feature that has the command ``word`` and is not installed, "" if none."""
    for name, words in table().items():
        if word in words and load(name) is None:
            return name
    return ""
