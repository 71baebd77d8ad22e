"""The commands of volumes: ``jaula volume create``, ``inspect``, ``ls``, ``prune`` and ``rm``."""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.cli.client.api_client import Client, filters, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers.create_body import pairs
from jaula.cli.for_each import each
from jaula.cli.images import prune_prompt
from jaula.cli.main import Settings
from jaula.cli.output import inspect_output, list_output
from jaula.spec import units


def create(options: Options) -> int:
    """Create the volume and print its name."""
    name = options.text("name")
    if options.arguments:
        if name:
            raise UsageError(
                "conflicting options: either specify --name or provide positional arg, not both",
                status=1,
            )
        name = options.arguments[0]
    body = {
        "Name": name,
        "Driver": options.text("driver", "local"),
        "Labels": pairs(options.texts("label"), "label"),
        "DriverOpts": pairs(options.texts("opt"), "opt"),
    }
    body = {key: value for key, value in body.items() if value}
    print(Client(Settings.host).document("POST", "/volumes/create", (), body)["Name"])
    return 0


CREATE = Command(
    "[OPTIONS] [VOLUME]",
    "Create a volume",
    create,
    flags=(
        Flag("driver", "d", "string", "Specify volume driver name", default="local"),
        Flag("label", "", "list", "Set metadata for a volume (key=value)"),
        Flag("name", "", "string", "Specify volume name"),
        Flag("opt", "o", "list", "Set driver specific options (key=value)"),
    ),
    max_args=1,
    description="Without a name the volume gets a random one.",
    examples=(("Create a volume", "jaula volume create data"),),
    see_also=("volume ls", "run"),
)


def inspect(options: Options) -> int:
    """Print the documents of the volumes."""
    client = Client(Settings.host)
    return inspect_output.show(
        options.arguments,
        options.text("format"),
        lambda name: client.get(f"/volumes/{quote(name)}"),
    )


INSPECT = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    inspect,
    flags=(inspect_output.FORMAT,),
    min_args=1,
    description="Prints Docker's document of each volume as JSON, or the output of a template.",
    examples=(("Inspect a volume", "jaula volume inspect data"),),
    see_also=("inspect", "volume ls"),
    completes="volume",
)


def ls(options: Options) -> int:
    """List volumes by name."""
    query = (("filters", filters(options.texts("filter"))),)
    volumes = (Client(Settings.host).get("/volumes", query) or {}).get("Volumes") or []
    volumes.sort(key=lambda volume: volume["Name"])
    output_format = options.text("format")
    if options.on("quiet") and output_format in ("", "table"):
        output_format = "{{.Name}}"
    list_output.show(volumes, COLUMNS, "{{.Driver}}\t{{.Name}}", output_format)
    return 0


COLUMNS: dict[str, list_output.Column] = {
    "Name": ("VOLUME NAME", lambda item: item["Name"]),
    "Driver": ("DRIVER", lambda item: item["Driver"]),
    "Mountpoint": ("MOUNTPOINT", lambda item: item["Mountpoint"]),
    "Scope": ("SCOPE", lambda item: item["Scope"]),
    "Labels": (
        "LABELS",
        lambda item: ",".join(
            f"{key}={value}" for key, value in sorted((item.get("Labels") or {}).items())
        ),
    ),
    "Links": ("LINKS", lambda item: str((item.get("UsageData") or {}).get("RefCount", "N/A"))),
    "Size": ("SIZE", lambda item: _size((item.get("UsageData") or {}).get("Size", -1))),
}


def _size(number: int) -> str:
    return "N/A" if number < 0 else units.human_size(number, 4)


LS = Command(
    "[OPTIONS]",
    "List volumes",
    ls,
    flags=(
        Flag("filter", "f", "list", "Provide filter values (dangling=true, label=a=b, name=d)"),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("quiet", "q", "bool", "Only display volume names"),
    ),
    max_args=0,
    description="Volumes keep data longer than the containers that use them.",
    examples=(("Unused volumes", "jaula volume ls -f dangling=true"),),
    see_also=("volume create", "volume rm", "volume prune"),
)


def prune(options: Options) -> int:
    """Prompt, remove the volumes and print the result."""
    if options.on("all"):
        warning = "This will remove all local volumes not used by at least one container."
        return prune_prompt.prune(options, "volumes", warning, ["all=true"])
    warning = "This will remove anonymous local volumes not used by at least one container."
    return prune_prompt.prune(options, "volumes", warning)


PRUNE = Command(
    "[OPTIONS]",
    "Remove unused local volumes",
    prune,
    flags=(
        Flag("all", "a", "bool", "Remove all unused volumes, not just anonymous ones"),
        prune_prompt.FILTER,
        prune_prompt.FORCE,
    ),
    max_args=0,
    description="Removes volumes that no container uses, running or not.",
    examples=(("Do not prompt", "jaula volume prune -f"),),
    see_also=("system prune", "system df"),
)


def rm(options: Options) -> int:
    """Remove the volumes with their contents."""
    client = Client(Settings.host)
    query = (("force", options.on("force")),)
    return each(
        options.arguments,
        lambda name: client.request("DELETE", f"/volumes/{quote(name)}", query),
    )


RM = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes",
    rm,
    flags=(
        Flag(
            "force",
            "f",
            "bool",
            "Force the removal of one or more volumes (ignore those that do not exist)",
        ),
    ),
    min_args=1,
    description="A volume that a container uses, running or not, is not removed.",
    examples=(("Remove a volume", "jaula volume rm data"),),
    see_also=("volume ls", "volume prune"),
    completes="volume",
)
