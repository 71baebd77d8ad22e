"""``jaula daemon``: the engine itself, in the foreground."""

from __future__ import annotations

from jaula.cli.failure import Failure, UsageError
from jaula.cli.flags import Command, Flag, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.config import EngineConfig


def run(options: Options) -> int:
    """Read the settings and become the engine."""
    import os

    if os.geteuid() != 0:
        raise Failure(
            "jaula: the engine needs root: its containers are made with mounts, cgroups "
            "and id maps of the host",
            status=125,
        )
    from jaula.cli import packages

    packages.enable()
    from jaula import daemon
    from jaula.errors import JaulaError

    try:
        daemon.main(_config(options))
    except JaulaError as error:
        raise Failure(f"jaula: {error}", status=error.exit_code) from None
    return 0


def _config(options: Options) -> EngineConfig:
    from pathlib import Path

    from jaula.config import DEFAULT_ROOT, DEFAULT_RUN, EngineConfig, Paths

    paths = Paths(
        Path(options.text("root", str(DEFAULT_ROOT))).absolute(),
        Path(options.text("run", str(DEFAULT_RUN))).absolute(),
    )
    socket = options.text("socket").removeprefix("unix://")
    settings: dict[str, object] = {
        "paths": paths,
        "socket": Path(socket).absolute() if socket else paths.socket,
        "debug": options.on("debug"),
    }
    for flag in FLAGS:
        field = flag.name.replace("-", "_")
        if not options.given(flag.name) or field in ("root", "run", "socket", "debug"):
            continue
        if field == "nofile":
            settings[field] = _nofile(options.text("nofile"))
        elif flag.kind == "string":
            settings[field] = options.text(flag.name)
        else:
            settings[field] = options.number(flag.name)
    return EngineConfig(**settings)  # type: ignore[arg-type]


def _nofile(text: str) -> tuple[int, int]:
    soft, colon, hard = text.partition(":")
    try:
        return int(soft), int(hard if colon else soft)
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for "--nofile" flag: soft[:hard]') from None


FLAGS = (
    Flag("root", "", "string", "What survives a boot: images, containers, volumes",
         default="/var/lib/jaula", completes="file"),
    Flag("run", "", "string", "What does not: sockets, state of running containers",
         default="/run/jaula", completes="file"),
    Flag("socket", "", "string", "Socket to listen on (default RUN/jaula.sock)", completes="file"),
    Flag("socket-group", "", "string", "Group that may use the socket"),
    Flag("storage-driver", "", "string", "overlay or vfs; probed where none is named",
         completes=("overlay", "vfs")),
    Flag("bridge", "", "string", "Name of the default bridge", default="jaula0"),
    Flag("bridge-subnet", "", "string", "Network of the default bridge (CIDR)"),
    Flag("address-pool", "", "string", "Networks to choose from (CIDR, by commas)",
         default="172.30.0.0/15,10.208.0.0/12"),
    Flag("subid-start", "", "int", "First id of the users inside containers",
         default="1000000000"),
    Flag("subid-count", "", "int", "Number of those ids", default="1000000000"),
    Flag("cgroup-parent", "", "string", "Cgroup that holds the containers'", default="jaula"),
    Flag("log-driver", "", "string", "Logging driver of new containers", default="json-file",
         completes=("json-file", "none")),
    Flag("log-max-size", "", "int", "Bytes after which a log is rotated", default="10000000"),
    Flag("log-max-file", "", "int", "Files that are kept of a log", default="3"),
    Flag("pids-limit", "", "int", "Processes at most in a container", default="4096"),
    Flag("nofile", "", "string", "Open files at most (soft[:hard])", default="1024:524288"),
    Flag("sandbox-pool", "", "int", "Network sandboxes that are kept ready", default="4"),
    Flag("debug", "D", "bool", "Say more in the log"),
)  # fmt: skip

COMMAND = Command(
    "[OPTIONS]",
    "Run the engine",
    run,
    flags=FLAGS,
    most=0,
    description=(
        "Serves the Docker Engine API on a socket, in the foreground, until SIGTERM. Containers "
        "go on when it ends, and the next engine with the same directories finds them. Any other "
        "command starts an engine with the settings' defaults when none answers on the default "
        "socket. Two engines with different directories, bridges and cgroup parents do not meet."
    ),
    examples=(
        (
            "An engine for a test, beside the machine's own",
            "jaula daemon --root /tmp/j/root --run /tmp/j/run --bridge jaula9 --cgroup-parent j9",
        ),
        ("Talk to it", "jaula -H unix:///tmp/j/run/jaula.sock ps"),
    ),
    exit_status=(("0", "ended by SIGTERM"), ("125", "it could not start")),
    see_also=("info", "check"),
)
