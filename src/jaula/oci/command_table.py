"""The commands of ``jaula-runtime``, each a module of its name in :mod:`jaula.oci.commands`."""

COMMANDS = {
    "create": "make a container that waits to be started",
    "start": "run the program of a container that was created",
    "run": "create and start a container",
    "exec": "run one more program in a container",
    "state": "print a container's state as JSON",
    "list": "list containers",
    "ps": "list the processes of a container",
    "kill": "send a signal to a container",
    "delete": "remove a container that has stopped",
    "pause": "stop every process of a container for a while",
    "resume": "let the processes of a paused container go on",
    "update": "change a container's limits",
    "events": "print a container's figures, and when it ran out of memory",
    "spec": "write a config.json to start from",
    "features": "print what this runtime can do as JSON",
}
