"""The list of pods: rows of this client's pods and of those that a kubelet runs, and filters.

Source: podman-pod-ps(1). Pods of a kubelet are groups of entries with the member ``Pod``.
"""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.cli.containers.listed_pods import title
from jaula.cli.output import times
from jaula.cli.output.list_output import short_id
from jaula.features.kubernetes.cli.pods import api_pods

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from jaula.cli.client.api_client import Client
    from jaula.cli.output.list_output import Column

DEFAULT = "{{.ID}}\t{{.Name}}\t{{.Status}}\t{{.Created}}\t{{.InfraID}}\t{{.NumberOfContainers}}"
SORT_KEYS = ("created", "id", "name", "number", "status")
FILTERS = (
    "ctr-ids", "ctr-names", "ctr-number", "ctr-status", "id", "label", "label!", "name",
    "network", "status", "until",
)  # fmt: skip
_REPEATED = ("label", "label!")  # filters whose values must all match


class Row:
    """One pod: its containers as the list of containers has them, the infra container first."""

    def __init__(self, id: str, name: str, status: str, entries: list[dict[str, Any]]) -> None:
        self.id = id
        self.name = name
        self.status = status
        self.entries = entries
        self.created = int(entries[0]["Created"])
        self.labels: dict[str, str] = entries[0].get("Labels") or {}

    @property
    def networks(self) -> list[str]:
        """Return the names of the networks of the pod."""
        return sorted((self.entries[0].get("NetworkSettings") or {}).get("Networks") or {})

    def document(self) -> dict[str, Any]:
        """Return the pod with the members of podman's ``pod ps --format json``."""
        return {
            "Id": self.id,
            "Name": self.name,
            "Status": self.status,
            "Created": self.created,
            "InfraId": self.entries[0]["Id"],
            "Labels": self.labels,
            "Networks": self.networks,
            "Containers": [
                {"Id": entry["Id"], "Names": container_name(entry), "Status": entry["State"]}
                for entry in self.entries
            ],
        }


def container_name(entry: dict[str, Any]) -> str:
    """Return the name of an entry of the list of containers, without its slash."""
    return str((entry.get("Names") or [""])[0]).removeprefix("/")


def rows(client: Client) -> list[Row]:
    """Return all pods, those of this client first, each group with the newest first."""
    result = [Row(pod.id, pod.name, pod.status, pod.containers) for pod in api_pods.listed(client)]
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in client.get("/containers/json", (("all", True), ("pods", True))):
        if entry.get("Pod"):
            groups.setdefault(entry["Pod"]["Sandbox"], []).append(entry)
    for sandbox, entries in groups.items():
        entries.sort(key=lambda entry: str(entry["Pod"].get("Container", "")))
        status = "Running" if entries[0]["State"] == "running" else "Exited"
        result.append(Row(sandbox, title(entries[0]["Pod"]), status, entries))
    return result


def columns(*, no_trunc: bool) -> dict[str, Column]:
    """Return the columns; ``no_trunc`` is the flag ``--no-trunc``."""

    def of_containers(member: str) -> Any:
        return lambda row: ",".join(_container(entry, member, no_trunc) for entry in row.entries)

    return {
        "ID": ("POD ID", lambda row: short_id(row.id, no_trunc)),
        "Id": ("POD ID", lambda row: short_id(row.id, no_trunc)),
        "Name": ("NAME", lambda row: row.name),
        "Status": ("STATUS", lambda row: row.status),
        "Created": ("CREATED", lambda row: times.ago(row.created)),
        "InfraID": ("INFRA ID", lambda row: short_id(row.entries[0]["Id"])),
        "InfraId": ("INFRA ID", lambda row: short_id(row.entries[0]["Id"])),
        "NumberOfContainers": ("# OF CONTAINERS", lambda row: str(len(row.entries))),
        "ContainerIds": ("IDS", of_containers("Id")),
        "ContainerNames": ("NAMES", of_containers("Name")),
        "ContainerStatuses": ("STATUS", of_containers("State")),
        "Networks": ("NETWORKS", lambda row: ",".join(row.networks)),
        "Labels": (
            "LABELS",
            lambda row: ",".join(f"{key}={row.labels[key]}" for key in sorted(row.labels)),
        ),
        "Label": (
            lambda name: name.rpartition(".")[2].upper(),
            lambda row: lambda name: row.labels.get(name, ""),
        ),
    }


def _container(entry: dict[str, Any], member: str, no_trunc: bool) -> str:
    if member == "Id":
        return short_id(entry["Id"], no_trunc)
    return container_name(entry) if member == "Name" else str(entry["State"])


def sort(unsorted: list[Row], key: str) -> list[Row]:
    """Return the rows by a key of :data:`SORT_KEYS`; ``created`` has the newest first. Pure."""
    if key == "created":
        return sorted(unsorted, key=lambda row: row.created, reverse=True)
    if key == "number":
        return sorted(unsorted, key=lambda row: len(row.entries))
    return sorted(unsorted, key=lambda row: str(getattr(row, key)))


def select(unfiltered: list[Row], conditions: Iterable[str], now: float) -> list[Row]:
    """Return the rows that match all filters; of several values of a filter one must match. Pure.

    ``now`` is the time in seconds since 1970, from which ``until`` counts back.

    :raises UsageError: when a filter is unknown or invalid.
    """
    values: dict[str, list[str]] = {}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        name = name.strip().lower()
        if not equals or name not in FILTERS:
            raise UsageError(f"invalid filter {condition!r}: must be one of {', '.join(FILTERS)}")
        values.setdefault(name, []).append(_checked(name, value.strip(), now))
    return [
        row
        for row in unfiltered
        if all(
            (all if name in _REPEATED else any)(_matches(row, name, text) for text in texts)
            for name, texts in values.items()
        )
    ]


def _checked(name: str, value: str, now: float) -> str:
    if name == "ctr-number" and not value.isdigit():
        raise UsageError(f"invalid filter ctr-number={value!r}: it is not a number")
    if name != "until":
        return value
    from jaula.spec import units

    if value.isdigit():
        return value
    try:
        return str(now - units.nanoseconds(value) / 1e9)
    except ValueError:
        return times.timestamp(value)


def _matches(row: Row, name: str, value: str) -> bool:
    match name:
        case "id":
            return row.id.startswith(value)
        case "name":
            return value in row.name
        case "status":
            return row.status.lower() == value.lower()
        case "label" | "label!":
            key, equals, text = value.partition("=")
            has = key in row.labels and (not equals or row.labels[key] == text)
            return has == (name == "label")
        case "network":
            return value in row.networks
        case "until":
            return row.created < float(value)
        case "ctr-number":
            return len(row.entries) == int(value)
        case "ctr-ids":
            return any(entry["Id"].startswith(value) for entry in row.entries)
        case "ctr-names":
            return any(value in container_name(entry) for entry in row.entries)
    return any(entry["State"] == value.lower() for entry in row.entries)
