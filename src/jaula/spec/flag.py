"""One flag of a command, as the tables of commands and of options declare it."""

from __future__ import annotations


class Flag:
    """One flag of one command.

    ``kind`` is the type of the value: ``bool``, ``string``, ``list`` (may be repeated), ``int``,
    ``size`` (bytes, ``64mb``), ``seconds`` or ``decimal``. ``completes`` is what a shell offers for
    the value: ``container``, ``image``, ``file`` or a list of words. ``implied`` is the value of a
    flag whose value may be absent; it is then given by ``--name=value`` only.
    """

    __slots__ = (
        "completes", "default", "group", "help", "implied", "kind", "metavar", "name", "short",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        short: str = "",
        kind: str = "string",
        help: str = "",
        *,
        metavar: str = "",
        group: str = "",
        default: str = "",
        completes: str | tuple[str, ...] = "",
        implied: str = "",
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.help = help
        self.metavar = metavar
        self.group = group
        self.default = default
        self.completes = completes
        self.implied = implied

    @property
    def label(self) -> str:
        """Return the name of the flag for error messages: ``-t, --tty``."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class PlacedFlag(Flag):
    """A flag of ``run`` with its place in the request.

    ``place`` is the member of the body of a create request, with the document first:
    ``HostConfig``, ``Config`` (the body itself), ``Healthcheck`` or ``Endpoint`` (the settings of
    the first network). It is '' if the client itself serves the option. ``syntax`` names the
    notation of the value, '' if the value of ``kind`` is the member; the command line and the web
    have a reader for each.
    """

    __slots__ = ("place", "syntax")

    def __init__(
        self,
        name: str,
        short: str,
        kind: str,
        help: str,
        *,
        metavar: str = "",
        group: str = "",
        default: str = "",
        completes: str | tuple[str, ...] = "",
        implied: str = "",
        place: str = "",
        syntax: str = "",
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.help = help
        self.metavar = metavar
        self.group = group
        self.default = default
        self.completes = completes
        self.implied = implied
        self.place = place
        self.syntax = syntax

    @property
    def document(self) -> str:
        """Return the document that the member is in, '' without one."""
        return self.place.partition(".")[0]

    @property
    def member(self) -> str:
        """Return the member, with those of documents in it: ``LogConfig.Type``."""
        return self.place.partition(".")[2]


HOST_CONFIG, CONFIG, HEALTHCHECK, ENDPOINT = "HostConfig", "Config", "Healthcheck", "Endpoint"
