"""``jaula events``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, filters
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(options: Options) -> int:
    """Print events as they happen, or those of a time span."""
    query = (
        ("since", times.timestamp(options.text("since"))),
        ("until", times.timestamp(options.text("until"))),
        ("filters", filters(options.texts("filter"))),
    )
    output_format = options.text("format")
    if output_format == "json":
        output_format = "{{json .}}"
    template = None
    if output_format:
        from jaula.cli.output.template import Template

        template = Template(output_format)  # docker replaces no backslash here
    for event in Client(Settings.host).lines("GET", "/events", query):
        print(template.render(Message(event)) if template else line(event), flush=True)
    return 0


class Message(dict):  # type: ignore[type-arg]
    """An event for a template: the names of Go's fields, and their zero values, are known, too."""

    _FIELDS = {
        "Status": ("status", ""),
        "ID": ("id", ""),
        "From": ("from", ""),
        "Scope": ("scope", ""),
        "Time": ("time", 0),
        "TimeNano": ("timeNano", 0),
    }

    def get(self, name: str, default: object = None) -> object:
        """Return the member for a name of the struct ``events.Message`` of moby."""
        return super().get(*self._FIELDS.get(name, (name, default)))


def line(event: dict[str, Any]) -> str:
    """Format one event as Docker does: time, type, action, object id, attributes."""
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    nano = event.get("timeNano") or event.get("time", 0) * 10**9
    seconds, rest = divmod(nano, 10**9)
    zone = times.local(seconds, "%z")
    when = times.local(seconds, "%Y-%m-%dT%H:%M:%S") + f".{rest:09d}"
    when += "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    text = f"{when} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    if attributes:
        text += f" ({', '.join(f'{key}={attributes[key]}' for key in sorted(attributes))})"
    return text


COMMAND = Command(
    "[OPTIONS]",
    "Get real time events from the engine",
    run,
    flags=(
        Flag(
            "filter",
            "f",
            "list",
            "Filter output based on conditions provided (type=container, event=oom, container=web)",
        ),
        Flag(
            "format", "", "string", "Format output using a custom template (json, or a Go template)"
        ),
        Flag(
            "since", "", "string", "Show all events created since timestamp (or relative, e.g. 42m)"
        ),
        Flag("until", "", "string", "Stream events until this timestamp"),
    ),
    max_args=0,
    description=(
        "Events of containers, images, volumes and networks. The event oom has the memory usage "
        "and the limit."
    ),
    examples=(
        (
            "Containers out of memory in the last day",
            "jaula events --since 24h --until 0s -f event=oom",
        ),
    ),
    see_also=("logs", "inspect"),
)
