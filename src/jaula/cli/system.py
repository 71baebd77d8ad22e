"""The commands of the engine: ``jaula system check``, ``df`` and ``prune``."""

from __future__ import annotations

from jaula.cli.cli_errors import EngineError
from jaula.cli.client.api_client import Client, filters
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import columns as container_columns
from jaula.cli.images import prune_prompt
from jaula.cli.main import Settings
from jaula.cli.output import list_output, times
from jaula.cli.output.list_output import short_id
from jaula.cli.output.progress_line import Progress
from jaula.spec import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def check(options: Options) -> int:
    """Print the findings; 1 if one is not repaired."""
    client = Client(Settings.host)
    query = (("contents", "1"),) if options.on("contents") else ()
    repair = options.on("repair")
    with Progress("repair" if repair else "check"):
        if repair:
            findings = client.document("POST", "/jaula/system/repair", query)["Findings"]
        else:
            findings = client.get("/jaula/system/check", query)["Findings"]
    output_format = options.text("format")
    if not findings and not output_format:
        print("No problems found.")
        return 0
    columns: dict[str, list_output.Column] = {
        "Area": ("AREA", lambda row: row["Area"]),
        "Subject": ("SUBJECT", lambda row: row["Subject"]),
        "Problem": ("PROBLEM", lambda row: row["Problem"]),
        "Advice": ("ADVICE", lambda row: row["Advice"]),
        "Repairable": ("REPAIRABLE", lambda row: row["Repairable"]),
        "Repaired": ("REPAIRED", lambda row: row["Repaired"]),
        "Failure": ("FAILURE", lambda row: row["Failure"]),
        "Outcome": ("REPAIRED" if repair else "REPAIR", _outcome if repair else _planned_repair),
    }
    default = "{{.Area}}\t{{.Subject}}\t{{.Problem}}\t{{.Outcome}}"
    list_output.show(findings, columns, default, output_format)
    return 0 if all(row["Repaired"] for row in findings) else 1


def _planned_repair(row: dict[str, Any]) -> str:
    """Return what --repair would do, or what the administrator can do."""
    return row["Advice"] if row["Repairable"] else f"by hand: {row['Advice']}"


def _outcome(row: dict[str, Any]) -> str:
    if row["Repaired"]:
        return f"yes: {row['Advice']}"
    return f"no: {row['Failure'] or row['Advice']}"


CHECK = Command(
    "[OPTIONS]",
    "Check the engine's state for dangling, missing or damaged objects",
    check,
    flags=(
        Flag("contents", "", "bool", "Verify the content of images too, as image verify does"),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("repair", "", "bool", "Repair what can be repaired without loss of data"),
    ),
    max_args=0,
    description=(
        "Compares images, layers, containers, volumes, networks and cgroups with the engine's "
        "database. The exit status is 0 if there is no finding or all are repaired, else 1."
    ),
    examples=(
        ("Check without changes", "jaula system check"),
        ("Check contents and repair", "jaula system check --contents --repair"),
    ),
    see_also=("image verify", "system df", "doctor"),
)


def df(options: Options) -> int:
    """Print the disk usage of each kind of object; with -v of each object."""
    usage = Client(Settings.host).get("/system/df")
    if options.on("verbose"):
        print(verbose(usage), end="")
        return 0
    default = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
    columns: dict[str, list_output.Column] = {
        "Type": ("TYPE", lambda row: row["Type"]),
        "TotalCount": ("TOTAL", lambda row: str(row["Total"])),
        "Active": ("ACTIVE", lambda row: str(row["Active"])),
        "Size": ("SIZE", lambda row: units.human_size(row["Size"])),
        "Reclaimable": ("RECLAIMABLE", _reclaimable),
    }
    list_output.show(summary(usage), columns, default, options.text("format"))
    return 0


def summary(usage: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each kind of object."""
    images, containers = usage.get("Images") or [], usage.get("Containers") or []
    volumes, caches = usage.get("Volumes") or [], usage.get("BuildCache") or []
    used_images = [image for image in images if image.get("Containers", 0) > 0]
    layers = usage.get("LayersSize") or 0
    unused = usage.get("LayersReclaimable")
    if unused is None:  # Docker's formula, which ignores layers shared by used images
        unused = layers - sum(
            image["Size"] - max(image.get("SharedSize", 0), 0) for image in used_images
        )
    running = [item for item in containers if item["State"] in ("running", "paused", "restarting")]
    ended = [item for item in containers if item not in running]
    linked = [
        volume for volume in volumes if (volume.get("UsageData") or {}).get("RefCount", 0) > 0
    ]
    unlinked = [volume for volume in volumes if volume not in linked]
    return [
        _row("Images", images, used_images, layers, unused),
        _row("Containers", containers, running, _written(containers), _written(ended)),
        _row("Local Volumes", volumes, linked, _volumes(volumes), _volumes(unlinked)),
        _row(
            "Build Cache",
            caches,
            [cache for cache in caches if cache.get("InUse")],
            _cached(caches),
            _cached([cache for cache in caches if not cache.get("InUse")]),
        ),
    ]


def _row(kind: str, objects: list[Any], active: list[Any], size: int, free: int) -> dict[str, Any]:
    return {
        "Type": kind,
        "Total": len(objects),
        "Active": len(active),
        "Size": size,
        "Reclaimable": max(free, 0),
    }


def _written(containers: list[Any]) -> int:
    return sum(container.get("SizeRw") or 0 for container in containers)


def _volumes(volumes: list[Any]) -> int:
    return sum(max((volume.get("UsageData") or {}).get("Size", 0), 0) for volume in volumes)


def _cached(caches: list[Any]) -> int:
    """Return the size of the build cache. Entries shared with images are counted there."""
    return sum(cache.get("Size", 0) for cache in caches if not cache.get("Shared"))


def _reclaimable(row: dict[str, Any]) -> str:
    text = units.human_size(row["Reclaimable"])
    if row["Type"] == "Build Cache":
        return text
    return f"{text} ({row['Reclaimable'] * 100 // row['Size']}%)" if row["Size"] else text


def verbose(usage: dict[str, Any]) -> str:
    """Return the tables of all images, containers, volumes and build cache entries."""
    images: dict[str, list_output.Column] = {
        "Repository": ("REPOSITORY", lambda row: _name(row)[0]),
        "Tag": ("TAG", lambda row: _name(row)[1]),
        "ID": ("IMAGE ID", lambda row: short_id(row["Id"])),
        "CreatedSince": ("CREATED", lambda row: times.ago(row["Created"])),
        "Size": ("SIZE", lambda row: units.human_size(row["Size"], 3)),
        "SharedSize": (
            "SHARED SIZE",
            lambda row: units.human_size(max(row.get("SharedSize", 0), 0)),
        ),
        "UniqueSize": (
            "UNIQUE SIZE",
            lambda row: units.human_size(row["Size"] - max(row.get("SharedSize", 0), 0)),
        ),
        "Containers": ("CONTAINERS", lambda row: str(max(row.get("Containers", 0), 0))),
    }
    volumes: dict[str, list_output.Column] = {
        "Name": ("VOLUME NAME", lambda row: row["Name"]),
        "Links": ("LINKS", lambda row: str((row.get("UsageData") or {}).get("RefCount", 0))),
        "Size": ("SIZE", lambda row: units.human_size(_volumes([row]))),
    }
    containers = container_columns.columns(no_trunc=False)
    containers["Size"] = ("SIZE", lambda row: units.human_size(row.get("SizeRw") or 0, 3))
    caches: list[Any] = usage.get("BuildCache") or []
    cached: dict[str, list_output.Column] = {
        "ID": ("CACHE ID", lambda row: short_id(row["ID"])),
        "CacheType": ("CACHE TYPE", lambda row: row.get("Type", "")),
        "Size": ("SIZE", lambda row: units.human_size(row.get("Size", 0), 3)),
        "CreatedSince": ("CREATED", lambda row: _since(row.get("CreatedAt"))),
        "LastUsedSince": ("LAST USED", lambda row: _since(row.get("LastUsedAt"))),
        "UsageCount": ("USAGE", lambda row: str(row.get("UsageCount", 0))),
        "Shared": ("SHARED", lambda row: "true" if row.get("Shared") else "false"),
    }
    parts = []
    for heading, rows, columns, names in (
        ("Images", usage.get("Images"), images, tuple(images)),
        (
            "Containers",
            usage.get("Containers"),
            containers,
            ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"),
        ),
        ("Local Volumes", usage.get("Volumes"), volumes, tuple(volumes)),
        ("Build cache", caches, cached, tuple(cached)),
    ):
        default = "\t".join(f"{{{{.{name}}}}}" for name in names)
        title = f"{heading} space usage:"
        if rows is caches:
            title = f"{heading} usage: {units.human_size(_cached(caches))}"
        parts.append(f"{title}\n\n" + list_output.text(rows or [], columns, default))
    return "\n".join(parts)


def _since(text: str | None) -> str:
    """Return the age of an RFC 3339 time, or an empty string."""
    return times.ago(units.unix_time(text)) if text else ""


def _name(image: dict[str, Any]) -> tuple[str, str]:
    tags = image.get("RepoTags") or ["<none>:<none>"]
    name, _, tag = tags[0].rpartition(":")
    return name, tag


DF = Command(
    "[OPTIONS]",
    "Show disk usage of the engine",
    df,
    flags=(
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("verbose", "v", "bool", "Show detailed information on space usage"),
    ),
    max_args=0,
    description="Layers that several images share are counted once.",
    examples=(("Show each object", "jaula system df -v"),),
    see_also=("system prune", "ps", "images"),
)


def prune(options: Options) -> int:
    """Prompt once, then prune containers, networks, volumes, images and the build cache."""
    client = Client(Settings.host)
    everything, volumes = options.on("all"), options.on("volumes")
    rows = [
        "all stopped containers",
        "all networks not used by at least one container",
        *(["all anonymous volumes not used by at least one container"] if volumes else []),
        "all images without at least one container associated to them"
        if everything
        else "all dangling images",
        "all build cache" if everything else "unused build cache",
    ]
    warning = "This will remove:\n" + "".join(f"  - {row}\n" for row in rows)
    prune_prompt.confirm(warning, force=options.on("force"))
    conditions = options.texts("filter")
    lines, total = prune_prompt.prune_objects(client, "containers", filters(conditions))
    prune_prompt.print_deleted("Deleted Containers", lines)
    lines, _ = prune_prompt.prune_objects(client, "networks", filters(conditions))
    prune_prompt.print_deleted("Deleted Networks", lines)
    if volumes:
        lines, freed = prune_prompt.prune_objects(client, "volumes", filters(conditions))
        total += freed
        prune_prompt.print_deleted("Deleted Volumes", lines)
    dangling = "dangling=false" if everything else "dangling=true"
    lines, freed = prune_prompt.prune_images(client, filters([*conditions, dangling]))
    total += freed
    prune_prompt.print_deleted("Deleted Images", lines)
    try:
        lines, freed = prune_prompt.prune_build_cache(client, conditions, all_entries=everything)
    except EngineError as error:
        if error.code != 404:
            raise
        lines, freed = [], 0  # an engine without the feature of builds has no cache
    total += freed
    prune_prompt.print_deleted("Deleted build cache objects", lines)
    prune_prompt.print_reclaimed(total)
    return 0


PRUNE = Command(
    "[OPTIONS]",
    "Remove unused data",
    prune,
    flags=(
        Flag("all", "a", "bool", "Remove all unused images not just dangling ones"),
        prune_prompt.FILTER,
        prune_prompt.FORCE,
        Flag("volumes", "", "bool", "Prune anonymous volumes"),
    ),
    max_args=0,
    description="Removes exited containers, unused networks and images, and the build cache.",
    examples=(("Do not prompt", "jaula system prune -f"),),
    see_also=("system df", "container prune", "image prune", "volume prune", "builder prune"),
)
