"""``jaula-runtime``: the OCI runtime command line that podman, containerd and docker call.

Follows the conventions of runc's command line, which callers were written for. Imports next to
nothing until the command is known: a call that only reads a state takes no longer than the
interpreter's own start.
"""

from __future__ import annotations

import os
import sys

from jaula import __version__
from jaula.errors import InvalidRequest, JaulaError
from jaula.oci.args import SWITCH, VALUE, CommandArgs, parse
from jaula.oci.log import Log
from jaula.oci.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

NAME = "jaula-runtime"
SPEC_VERSION = "1.2.0"
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
GLOBAL_FLAGS = {
    "root": VALUE,
    "log": VALUE,
    "log-format": VALUE,
    "debug": SWITCH,
    "systemd-cgroup": SWITCH,
    "rootless": VALUE,
    "help": SWITCH,
    "h": "help",
    "version": SWITCH,
    "v": "version",
}
_ROOTLESS = {"": None, "auto": None, "true": True, "false": False}


def main() -> NoReturn:
    """Run and leave without unwinding: nothing of ours needs it."""
    code = run(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)


def run(words: Sequence[str]) -> int:
    """The exit status of one call."""
    log = Log()
    code = 1
    try:
        options, rest = parse(words, GLOBAL_FLAGS, NAME)
        if options.on("version"):
            _say(f"{NAME} version {__version__}\ncommit: v{__version__}\nspec: {SPEC_VERSION}\n")
            return 0
        if not rest or options.on("help") or rest[0] in ("help", "h"):
            _say(_usage())
            return 0
        style = options.get("log-format", "text")
        if style not in ("text", "json"):
            raise InvalidRequest(f"unknown log-format {style!r}", hint="text or json")
        log = Log(options.get("log"), style, debug=options.on("debug"))
        if options.get("rootless") not in _ROOTLESS:
            raise InvalidRequest(
                f"--rootless: {options.get('rootless')!r} is not true, false or auto"
            )
        settings = Settings(
            root=os.path.abspath(options.get("root")) if options.get("root") else "",
            log=options.get("log"),
            log_format=style,
            debug=options.on("debug"),
            systemd_cgroup=options.on("systemd-cgroup"),
            rootless=_ROOTLESS[options.get("rootless")],
        )
        name, *following = rest
        command = COMMANDS.get(name)
        if command is None:
            raise InvalidRequest(f"no such command: {name}", hint=f"{NAME} --help lists them")
        module = _module(name)
        flags = {**module.FLAGS, "help": SWITCH, "h": "help"}
        options, arguments = parse(following, flags, f"{NAME} {name}")
        if options.on("help"):
            _say(_usage_of(name, module))
            return 0
        code = getattr(module, "FAILURE", 1)
        status: int = module.run(CommandArgs(name, options, arguments, settings, log))
        return status
    except JaulaError as error:
        log.error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        text = about + (error.strerror or str(error)).lower()
        log.error(text)
    return code


def _module(name: str) -> Any:
    import importlib

    return importlib.import_module(f"jaula.oci.commands.{name}")


def _say(text: str) -> None:
    os.write(1, text.encode())


def _usage() -> str:
    width = max(len(name) for name in COMMANDS) + 3
    rows = "".join(f"   {name.ljust(width)}{line}\n" for name, line in COMMANDS.items())
    flags = "".join(f"   --{name}\n" for name, kind in GLOBAL_FLAGS.items() if len(name) > 1)
    return (
        f"{NAME}: an OCI runtime, version {__version__}, for spec {SPEC_VERSION}\n\n"
        f"usage: {NAME} [global flags] command [flags] [arguments]\n\n"
        f"commands:\n{rows}\nglobal flags:\n{flags}"
    )


def _usage_of(name: str, module: Any) -> str:
    flags = "".join(
        f"   --{flag}{'' if kind == SWITCH else ' VALUE'}\n"
        for flag, kind in module.FLAGS.items()
        if len(flag) > 1
    )
    return f"{NAME} {name}: {COMMANDS[name]}\n\nusage: {NAME} {name} {module.USAGE}\n\n{flags}"
