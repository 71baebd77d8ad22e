"""The table of commands: the words of each command and the place of its value.

A place is ``MODULE``, whose value is ``COMMAND``, or ``MODULE:VALUE`` in a module with the commands
of one noun.

A module is imported when its command is used. Most commands have two names, as Docker's do: ``jaula
ps`` and ``jaula container ls`` select the same place.
"""

from __future__ import annotations

from jaula import feature
from jaula.cli.command_parser import Command, Flag

MODULES = "jaula.cli."

# command words: MODULE in jaula.cli, whose value is COMMAND, or MODULE:VALUE
CORE_COMMANDS = {
    "run": "run:RUN",
    "create": "run:CREATE",
    "start": "container:START",
    "stop": "container:STOP",
    "restart": "container:RESTART",
    "kill": "container:KILL",
    "pause": "container:PAUSE",
    "unpause": "container:UNPAUSE",
    "rm": "container:RM",
    "rename": "container:RENAME",
    "update": "container:UPDATE",
    "ps": "ps",
    "inspect": "inspect",
    "attach": "container:ATTACH",
    "exec": "exec_",
    "logs": "container:LOGS",
    "wait": "container:WAIT",
    "port": "container:PORT",
    "top": "container:TOP",
    "stats": "stats",
    "cgtop": "cgtop",
    "diff": "container:DIFF",
    "cp": "cp",
    "commit": "container:COMMIT",
    "events": "events",
    "info": "info",
    "version": "version",
    "images": "image:LS",
    "pull": "image:PULL",
    "push": "image:PUSH",
    "login": "login:LOGIN",
    "logout": "login:LOGOUT",
    "search": "login:SEARCH",
    "import": "image:IMPORT",
    "load": "image:LOAD",
    "save": "image:SAVE",
    "export": "container:EXPORT",
    "tag": "image:TAG",
    "rmi": "image:RM",
    "history": "image:HISTORY",
    "compose": "compose",
    "daemon": "daemon",
    "caps": "caps",
    "completion": "completion",
    "help": "help_command",
    "container attach": "container:ATTACH",
    "container commit": "container:COMMIT",
    "container cp": "cp",
    "container create": "run:CREATE",
    "container diff": "container:DIFF",
    "container exec": "exec_",
    "container export": "container:EXPORT",
    "container inspect": "container:INSPECT",
    "container kill": "container:KILL",
    "container logs": "container:LOGS",
    "container ls": "ps",
    "container pause": "container:PAUSE",
    "container port": "container:PORT",
    "container prune": "container:PRUNE",
    "container rename": "container:RENAME",
    "container restart": "container:RESTART",
    "container rm": "container:RM",
    "container run": "run:RUN",
    "container start": "container:START",
    "container stats": "stats",
    "container stop": "container:STOP",
    "container top": "container:TOP",
    "container unpause": "container:UNPAUSE",
    "container update": "container:UPDATE",
    "container wait": "container:WAIT",
    "context create": "context:CREATE",
    "context export": "context:EXPORT",
    "context import": "context:IMPORT",
    "context inspect": "context:INSPECT",
    "context ls": "context:LS",
    "context rm": "context:RM",
    "context show": "context:SHOW",
    "context update": "context:UPDATE",
    "context use": "context:USE",
    "image bootstrap": "image:BOOTSTRAP",
    "image history": "image:HISTORY",
    "image import": "image:IMPORT",
    "image inspect": "image:INSPECT",
    "image load": "image:LOAD",
    "image ls": "image:LS",
    "image prune": "image:PRUNE",
    "image pull": "image:PULL",
    "image push": "image:PUSH",
    "image rm": "image:RM",
    "image save": "image:SAVE",
    "image tag": "image:TAG",
    "manifest annotate": "manifest:ANNOTATE",
    "manifest create": "manifest:CREATE",
    "manifest inspect": "manifest:INSPECT",
    "manifest push": "manifest:PUSH",
    "manifest rm": "manifest:RM",
    "network connect": "network:CONNECT",
    "network create": "network:CREATE",
    "network disconnect": "network:DISCONNECT",
    "network inspect": "network:INSPECT",
    "network ls": "network:LS",
    "network prune": "network:PRUNE",
    "network rm": "network:RM",
    "system audit-log": "audit_log",
    "system check": "system:CHECK",
    "system df": "system:DF",
    "system events": "events",
    "system dial-stdio": "dial_stdio",
    "system info": "info",
    "system prune": "system:PRUNE",
    "volume create": "volume:CREATE",
    "volume inspect": "volume:INSPECT",
    "volume ls": "volume:LS",
    "volume prune": "volume:PRUNE",
    "volume rm": "volume:RM",
}

# Docker's aliases: other words for the same command, absent from the lists of commands.
CORE_ALIASES = {
    "container list": "container ls",
    "container ps": "container ls",
    "container remove": "container rm",
    "context list": "context ls",
    "context remove": "context rm",
    "image list": "image ls",
    "image remove": "image rm",
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "volume remove": "volume rm",
}

CORE_GROUPS = {
    "container": "Manage containers",
    "context": "Manage contexts",
    "image": "Manage images",
    "manifest": "Manage image manifests and manifest lists",
    "network": "Manage networks",
    "system": "Manage the engine",
    "volume": "Manage volumes",
}


ROOT = Command(
    "[OPTIONS] COMMAND",
    "A Linux container engine that proves its isolation",
    run=lambda options: 0,
    flags=(
        Flag(
            "host",
            "H",
            "list",
            "Engine socket to connect to (unix:///path, tcp://host:port, ssh://host)",
        ),
        Flag(
            "context",
            "c",
            "string",
            "Name of the context to use (overrides JAULA_HOST, DOCKER_HOST)",
        ),
        Flag("tls", "", "bool", "Use TLS; implied by --tlsverify"),
        Flag("tlsverify", "", "bool", "Use TLS and verify the remote"),
        Flag("tlscacert", "", "string", "Trust certs signed only by this CA"),
        Flag("tlscert", "", "string", "Path to TLS certificate file"),
        Flag("tlskey", "", "string", "Path to TLS key file"),
        Flag("debug", "D", "bool", "Enable debug mode (print the traceback of an internal error)"),
        Flag("no-color", "", "bool", "Print no colors (also: NO_COLOR in the environment)"),
        Flag("version", "v", "bool", "Print version information and quit"),
    ),
    interspersed=False,
)


class _Tables:
    """The tables with the commands of all features, merged when they are first asked for."""

    commands: dict[str, str] = {}
    aliases: dict[str, str] = {}
    groups: dict[str, str] = {}


def commands() -> dict[str, str]:
    """Return the place of each command, by the words that select it."""
    return _tables().commands


def aliases() -> dict[str, str]:
    """Return other words for commands."""
    return _tables().aliases


def groups() -> dict[str, str]:
    """Return the summary of each word that begins several commands."""
    return _tables().groups


def _tables() -> type[_Tables]:
    if not _Tables.commands:
        _Tables.commands = {words: MODULES + name for words, name in CORE_COMMANDS.items()}
        _Tables.aliases, _Tables.groups = dict(CORE_ALIASES), dict(CORE_GROUPS)
        for each in feature.features():
            for words, name in each.commands.items():
                _Tables.commands[words] = each.module(name)
            _Tables.aliases.update(each.aliases)
            _Tables.groups.update(each.groups)
    return _Tables


def place_of(words: str) -> str:
    """Return the place of a command. It reads no feature for a command of the core.

    :raises KeyError: when there is no such command.
    """
    words = CORE_ALIASES.get(words, words)
    if words in CORE_COMMANDS:
        return MODULES + CORE_COMMANDS[words]
    return commands()[aliases().get(words, words)]


def module_of(words: str) -> str:
    """Return the name of the module of a command.

    :raises KeyError: when there is no such command.
    """
    return place_of(words).partition(":")[0]


def load(words: str) -> Command:
    """Return the command that ``words`` select.

    :raises KeyError: when there is no such command.
    """
    module, _, name = place_of(words).partition(":")
    name = name or "COMMAND"
    command: Command = getattr(__import__(module, fromlist=(name,)), name)
    command.path = words
    return command
