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
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    Owner = TypeVar("Owner")
    Service = TypeVar("Service")

PACKAGE = "jaula.features"


class Hook:
    """A function of a feature that the core calls at a named point.

    ``function`` is ``MODULE:NAME`` below the feature's package. ``asks`` tells whether the call is
    needed: for a container from the ``HostConfig`` of its request, for an engine from its settings.
    The module is not imported otherwise. Without it the call is always needed. The points and their
    contracts are the methods of :class:`jaula.engine.hooks.Hooks`.
    """

    __slots__ = ("asks", "function", "point")

    def __init__(
        self, point: str, function: str, asks: Callable[[Any], bool] | None = None
    ) -> None:
        self.point = point
        self.function = function
        self.asks = asks


class Feature:
    """One feature. All modules are names below the feature's package.

    ``commands`` has the place of each command, by the words that select it: ``MODULE``, whose
    value is ``COMMAND``, or ``MODULE:VALUE``. ``aliases`` has other
    words for these commands, and ``groups`` a summary for each first word with several commands.
    ``run_flags`` has the module that serves a flag of ``jaula run``. ``routes`` has modules with
    ``ROUTES``, by the nouns of their paths. ``checks`` has modules with ``INFO`` and ``check``,
    which ``jaula verify`` executes too, and ``host_checks`` those of ``verify --host``.
    ``tls_protocols`` are names of protocols beside HTTP on the TLS sockets. ``idle`` has the
    modules that an engine with its default settings imports; its archive has them. ``hooks`` are
    called by the engine.

    Functions are ``MODULE:NAME``. ``shows_record`` is the one that ``jaula record show`` asks
    first, ``image_policy`` returns the image policy of an engine, ``lazy_layers`` its layers that
    are mounted while they are fetched. ``presets`` has those that complete a request, by the names
    of confinement presets, and ``settings`` those that check and convert settings of the engine, by
    the prefixes of their names. ``runtime`` has those that a process of the runtime calls, by
    the kind of its request.
    """

    __slots__ = (
        "aliases",
        "checks",
        "commands",
        "groups",
        "hooks",
        "host_checks",
        "idle",
        "image_policy",
        "lazy_layers",
        "name",
        "presets",
        "routes",
        "run_flags",
        "runtime",
        "settings",
        "shows_record",
        "tls_protocols",
    )

    def __init__(
        self,
        name: str,
        *,
        commands: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
        groups: Mapping[str, str] | None = None,
        routes: Mapping[str, Sequence[str]] | None = None,
        checks: Sequence[str] = (),
        host_checks: Sequence[str] = (),
        shows_record: str = "",
        image_policy: str = "",
        lazy_layers: str = "",
        tls_protocols: Sequence[str] = (),
        run_flags: Mapping[str, str] | None = None,
        presets: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        runtime: Mapping[str, str] | None = None,
        idle: Sequence[str] = (),
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.name = name
        self.commands = dict(commands or {})
        self.aliases = dict(aliases or {})
        self.groups = dict(groups or {})
        self.routes = {noun: tuple(modules) for noun, modules in (routes or {}).items()}
        self.checks = tuple(checks)
        self.host_checks = tuple(host_checks)
        self.shows_record = shows_record
        self.image_policy = image_policy
        self.lazy_layers = lazy_layers
        self.tls_protocols = tuple(tls_protocols)
        self.run_flags = dict(run_flags or {})
        self.presets = dict(presets or {})
        self.settings = dict(settings or {})
        self.runtime = dict(runtime or {})
        self.idle = tuple(idle)
        self.hooks = tuple(hooks)

    def module(self, name: str) -> str:
        """Return the full name of one of the feature's modules."""
        return f"{PACKAGE}.{self.name}.{name}"

    def function(self, place: str) -> Callable[..., Any]:
        """Import and return the function ``MODULE:NAME`` of the feature."""
        module, _, name = place.partition(":")
        found: Callable[..., Any] = getattr(__import__(self.module(module), fromlist=(name,)), name)
        return found


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
    """Return one feature of the table, None if it or one that it needs is not installed."""
    module = f"{PACKAGE}.{name}.feature"
    try:
        found: Feature = __import__(module, fromlist=("FEATURE",)).FEATURE
    except ModuleNotFoundError as error:
        if error.name not in (PACKAGE, f"{PACKAGE}.{name}", module):
            raise
        return None
    if any(load(each) is None for each in needs(name)):
        return None
    return found


def features() -> list[Feature]:
    """Return all installed features, in the order of the table."""
    return [found for name in table() if (found := load(name)) is not None]


def provider(part: str) -> Callable[..., Any] | None:
    """Return the function that a feature gives for a part of the engine, None without the feature.

    ``part`` is ``image_policy`` or ``lazy_layers``.
    """
    for each in features():
        if place := getattr(each, part):
            return each.function(place)
    return None


def runtime(kind: str) -> Callable[..., Any]:
    """Return the function with which a feature serves a kind of request to the runtime.

    :raises RuntimeFailure: when no installed feature does.
    """
    for each in features():
        if place := each.runtime.get(kind):
            return each.function(place)
    from jaula.errors import RuntimeFailure

    raise RuntimeFailure(
        f"no installed feature of jaula serves the request {kind}", hint="install all of jaula"
    )


def modules(part: str) -> list[Any]:
    """Import and return the modules of all features for ``checks`` or ``host_checks``."""
    return [
        __import__(each.module(name), fromlist=("",))
        for each in features()
        for name in getattr(each, part)
    ]


def needs(name: str) -> tuple[str, ...]:
    """Return the features without which one does not work."""
    found: tuple[str, ...] = __import__(PACKAGE, fromlist=("NEEDS",)).NEEDS.get(name, ())
    return found


def require(name: str, what: str) -> None:
    """Check that a feature is installed, before a part of it is imported for ``what``.

    :raises InvalidRequest: when it is not.
    """
    if load(name) is None:
        from jaula.errors import InvalidRequest

        raise InvalidRequest(
            f"{what} needs the feature {name}, which is not installed",
            hint="install all of jaula",
        )


def missing() -> list[str]:
    """Return the names of the features that are not installed."""
    return [name for name in table() if load(name) is None]


def missing_for(word: str) -> str:
    """Return the feature that has the command ``word`` and is not installed, "" if none."""
    for name, words in table().items():
        if word in words and load(name) is None:
            return name
    return ""


class ServiceCache:
    """The services of features of one owner, such as the engine: each is made at its first use.

    A feature offers a function that makes its service from the owner, and everyone who needs the
    service asks for it by this function. So an owner names no service of a feature, and mypy knows
    the type of each.
    """

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[Callable[[Any], Any], Any] = {}

    def service(self, owner: Owner, make: Callable[[Owner], Service]) -> Service:
        """Return the service that ``make`` makes, made now if it was not."""
        if make not in self._made:
            self._made[make] = make(owner)
        found: Service = self._made[make]
        return found

    def existing(self, make: Callable[[Owner], Service]) -> Service | None:
        """Return a service if it has been made."""
        found: Service | None = self._made.get(make)
        return found
