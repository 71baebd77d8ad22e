"""The one list of commands: the words that name them and the modules that hold them.

A module is imported when its command is used. Most commands have two names, as Docker's do
(``jaula ps`` and ``jaula container ls``); both lead to the same module.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.flags import Command

# words: module in jaula.cli.commands
COMMANDS = {
    "run": "run",
    "create": "create",
    "start": "start",
    "stop": "stop",
    "restart": "restart",
    "kill": "kill",
    "pause": "pause",
    "unpause": "unpause",
    "rm": "rm",
    "rename": "rename",
    "update": "update",
    "ps": "ps",
    "inspect": "inspect",
    "attach": "attach",
    "exec": "exec_",
    "logs": "logs",
    "wait": "wait",
    "port": "port",
    "top": "top",
    "stats": "stats",
    "cgtop": "cgtop",
    "diff": "diff",
    "cp": "cp",
    "commit": "commit",
    "events": "events",
    "info": "info",
    "version": "version",
    "images": "images",
    "pull": "pull",
    "push": "push",
    "login": "login",
    "logout": "logout",
    "search": "search",
    "import": "import_",
    "load": "load",
    "save": "save",
    "export": "export",
    "tag": "tag",
    "rmi": "rmi",
    "history": "history",
    "daemon": "daemon",
    "check": "check",
    "doctor": "doctor",
    "verify": "verify",
    "tree": "tree",
    "caps": "caps",
    "demo": "demo",
    "completion": "completion",
    "help": "help_",
    "container attach": "attach",
    "container commit": "commit",
    "container cp": "cp",
    "container create": "create",
    "container diff": "diff",
    "container exec": "exec_",
    "container export": "export",
    "container inspect": "container_inspect",
    "container kill": "kill",
    "container logs": "logs",
    "container ls": "ps",
    "container pause": "pause",
    "container port": "port",
    "container prune": "container_prune",
    "container rename": "rename",
    "container restart": "restart",
    "container rm": "rm",
    "container run": "run",
    "container start": "start",
    "container stats": "stats",
    "container stop": "stop",
    "container top": "top",
    "container unpause": "unpause",
    "container update": "update",
    "container wait": "wait",
    "image bootstrap": "image_bootstrap",
    "image history": "history",
    "image import": "import_",
    "image inspect": "image_inspect",
    "image load": "load",
    "image ls": "images",
    "image prune": "image_prune",
    "image pull": "pull",
    "image push": "push",
    "image rm": "rmi",
    "image save": "save",
    "image tag": "tag",
    "manifest inspect": "manifest_inspect",
    "network connect": "network_connect",
    "network create": "network_create",
    "network disconnect": "network_disconnect",
    "network inspect": "network_inspect",
    "network ls": "network_ls",
    "network prune": "network_prune",
    "network rm": "network_rm",
    "system audit-log": "audit_log",
    "system df": "system_df",
    "system events": "events",
    "system info": "info",
    "system prune": "system_prune",
    "volume create": "volume_create",
    "volume inspect": "volume_inspect",
    "volume ls": "volume_ls",
    "volume prune": "volume_prune",
    "volume rm": "volume_rm",
}

# Other words for the same command; not shown in lists.
ALIASES = {
    "container list": "container ls",
    "container ps": "container ls",
    "container remove": "container rm",
    "image list": "image ls",
    "image remove": "image rm",
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "volume remove": "volume rm",
}

GROUPS = {
    "container": "Manage containers",
    "image": "Manage images",
    "manifest": "Look at what registries have",
    "network": "Manage networks",
    "system": "Manage the engine",
    "volume": "Manage volumes",
}


def load(words: str) -> Command:
    """The command that ``words`` name. Raises KeyError where there is none."""
    module_name = "jaula.cli.commands." + COMMANDS[ALIASES.get(words, words)]
    module = __import__(module_name, fromlist=("COMMAND",))
    command: Command = module.COMMAND
    command.path = words
    return command
