"""``jaula pod ls``."""

from __future__ import annotations

from time import time

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import list as output_list
from jaula.features.kubernetes.cli.pods import list as pod_list

_OF_CONTAINERS = (
    ("ctr-ids", "ContainerIds"),
    ("ctr-names", "ContainerNames"),
    ("ctr-status", "ContainerStatuses"),
)


def run(options: Options) -> int:
    """Print one line for each pod."""
    rows = pod_list.select(pod_list.rows(Client(Settings.host)), options.texts("filter"), time())
    rows = pod_list.sort(rows, options.choice("sort", pod_list.SORT_KEYS))
    if options.on("latest"):
        rows = pod_list.sort(rows, "created")[:1]
    output_format = options.text("format")
    if output_format == "json":
        from jaula.spec.fast_json import pretty

        print(pretty([row.document() for row in rows]))
        return 0
    if options.on("quiet") and output_format in ("", "table"):
        output_format = "{{.ID}}"
    default = pod_list.DEFAULT + "".join(
        f"\t{{{{.{name}}}}}" for flag, name in _OF_CONTAINERS if options.on(flag)
    )
    columns = pod_list.columns(no_trunc=options.on("no-trunc"))
    text = output_list.text(rows, columns, default, output_format)
    if options.on("noheading") and (output_format in ("", "table") or "table " in output_format):
        text = text.partition("\n")[2]
    print(text, end="")
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "List pods",
    run,
    flags=(
        Flag("ctr-ids", "", "bool", "Display the IDs of the containers"),
        Flag("ctr-names", "", "bool", "Display the names of the containers"),
        Flag("ctr-status", "", "bool", "Display the states of the containers"),
        Flag(
            "filter",
            "f",
            "list",
            "Filter output based on conditions provided (status=running, name=web, label=a=b)",
        ),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("latest", "l", "bool", "Show the newest pod"),
        Flag("no-trunc", "", "bool", "Do not truncate output"),
        Flag("noheading", "n", "bool", "Do not print the heading"),
        Flag("quiet", "q", "bool", "Only display pod IDs"),
        Flag(
            "sort",
            "",
            "string",
            "Sort by created, id, name, number or status",
            default="created",
            completes=pod_list.SORT_KEYS,
        ),
    ),
    max_args=0,
    description=(
        "Lists the pods of `pod create` and `kube play`, and those that a kubelet runs. Filters: "
        + ", ".join(pod_list.FILTERS)
        + "."
    ),
    examples=(
        ("List pods", "jaula pod ls"),
        ("Names and states", "jaula pod ls --format '{{.Name}} {{.Status}}'"),
    ),
    see_also=("pod create", "pod inspect", "ps"),
)
