"""``jaula-runtime``: the OCI runtime command line that podman, containerd and docker call.

Follows the conventions of runc's command line, which callers were written for. It imports almost
nothing until the command is known: a command that only reads a state takes little more than the
start of the interpreter. Each of :data:`COMMANDS` is a module of its name in
:mod:`jaula.oci.commands`.
"""

from __future__ import annotations

import posix
import sys

from jaula import __version__
from jaula.errors import InvalidRequest, JaulaError
from jaula.oci.args import SWITCH, VALUE, CommandArgs, parse
from jaula.oci.log import Log
from jaula.oci.runtime_settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

NAME = "jaula-runtime"
SPEC_VERSION = "1.2.0"
COMMANDS = {
    "create": "create a container",
    "start": "execute the user defined process in a created container",
    "run": "create and run a container",
    "exec": "execute a new process inside the container",
    "state": "output the state of a container",
    "list": "list containers",
    "ps": "display the processes running inside a container",
    "kill": "send a signal to the container's init process",
    "delete": "delete a stopped container and the resources it held",
    "pause": "suspend all processes inside the container",
    "resume": "resume all processes that have been previously paused",
    "update": "update container resource constraints",
    "events": "display container events such as OOM notifications and statistics",
    "spec": "create a new specification file",
    "features": "show the enabled features",
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
_OWN_WORDS = ("exec", "ps")  # arguments after the container's id are those of another program
_ROOTLESS = {"": None, "auto": None, "true": True, "false": False}


def main() -> NoReturn:
    """Run a command and exit without unwinding, which nothing here needs."""
    code = run(sys.argv[1:])
    sys.stdout.flush()
    posix._exit(code)


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    log = Log()
    code = 1
    try:
        options, rest = parse(argv, GLOBAL_FLAGS, NAME)
        if options.on("version"):
            _print(f"{NAME} version {__version__}\ncommit: v{__version__}\nspec: {SPEC_VERSION}\n")
            return 0
        if not rest or options.on("help") or rest[0] in ("help", "h"):
            _print(_usage())
            return 0
        log_format = options.get("log-format", "text")
        if log_format not in ("text", "json"):
            raise InvalidRequest(f"unknown log-format {log_format!r}", hint="text or json")
        log = Log(options.get("log"), log_format, debug=options.on("debug"))
        if options.get("rootless") not in _ROOTLESS:
            raise InvalidRequest(
                f"--rootless: {options.get('rootless')!r} is not true, false or auto"
            )
        settings = Settings(
            root=_absolute(options.get("root")),
            log=options.get("log"),
            log_format=log_format,
            debug=options.on("debug"),
            systemd_cgroup=options.on("systemd-cgroup"),
            rootless=_ROOTLESS[options.get("rootless")],
        )
        name, *remaining = rest
        command = COMMANDS.get(name)
        if command is None:
            raise InvalidRequest(f"no such command: {name}", hint=f"{NAME} --help lists them")
        module = _module(name)
        flags = {**module.FLAGS, "help": SWITCH, "h": "help"}
        anywhere = name not in _OWN_WORDS
        options, arguments = parse(remaining, flags, f"{NAME} {name}", anywhere=anywhere)
        if options.on("help"):
            _print(_command_usage(name, module))
            return 0
        code = getattr(module, "FAILURE", 1)
        log.step(f"{name}: containers are in {settings.root}")
        status: int = module.run(CommandArgs(name, options, arguments, settings, log))
        return status
    except JaulaError as error:
        log.error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        path = f"{error.filename}: " if error.filename else ""
        text = path + (error.strerror or str(error)).lower()
        log.error(text)
    except Exception as error:  # noqa: BLE001 - a defect of this program is one line too
        text = f"internal error: {type(error).__name__}: {error}"
        log.error(text)
        if log.debugging:
            import traceback

            for line in traceback.format_exc().splitlines():
                log.step(line)
    return code


def _module(name: str) -> Any:
    module = f"jaula.oci.commands.oci_{name}"
    __import__(module)
    return sys.modules[module]


def _absolute(path: str) -> str:
    """Return an absolute path without ``.`` and ``..``; "" for ""."""
    if not path or (path[0] == "/" and "//" not in path and "/." not in path and path[-1] != "/"):
        return path
    import os  # 2 ms, for the paths of few callers

    return os.path.abspath(path)


def _print(text: str) -> None:
    posix.write(1, text.encode())


def _usage() -> str:
    width = max(len(name) for name in COMMANDS) + 3
    rows = "".join(f"   {name.ljust(width)}{line}\n" for name, line in COMMANDS.items())
    flags = "".join(f"   --{name}\n" for name, kind in GLOBAL_FLAGS.items() if len(name) > 1)
    return (
        f"{NAME}: an OCI runtime, version {__version__}, for spec {SPEC_VERSION}\n\n"
        f"usage: {NAME} [global flags] command [flags] [arguments]\n\n"
        f"commands:\n{rows}\nglobal flags:\n{flags}"
    )


def _command_usage(name: str, module: Any) -> str:
    flags = "".join(
        f"   --{flag}{'' if kind == SWITCH else ' VALUE'}\n"
        for flag, kind in module.FLAGS.items()
        if len(flag) > 1
    )
    return f"{NAME} {name}: {COMMANDS[name]}\n\nusage: {NAME} {name} {module.USAGE}\n\n{flags}"
