"""Pods of Kubernetes in the list of containers (``GET /containers/json?pods=1``)."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

_ID_PREFIX = 6  # characters: a shorter text is a name


def title(pod: dict[str, Any]) -> str:
    """Return ``NAMESPACE/NAME`` of the member ``Pod`` of a container; its id if it has no name."""
    if not pod.get("Name"):
        return str(pod.get("Sandbox", ""))[:12]
    return f"{pod.get('Namespace', '')}/{pod['Name']}"


def select(listed: Iterable[dict[str, Any]], ref: str) -> list[dict[str, Any]]:
    """Return the listed containers of a pod, the sandbox first; nothing if there is no such pod.

    ``ref`` is its name, ``NAMESPACE/NAME``, its UID, or the id of its sandbox or the beginning of
    it.

    :raises CliError: when several pods have the name.
    """
    pods: dict[str, list[dict[str, Any]]] = {}
    for entry in listed:
        if pod := entry.get("Pod"):
            pods.setdefault(pod["Sandbox"], []).append(entry)
    by_id = [id for id in pods if len(ref) >= _ID_PREFIX and id.startswith(ref)]
    found = by_id or [
        id
        for id, entries in pods.items()
        if ref in (entries[0]["Pod"].get("Name"), entries[0]["Pod"].get("UID"))
        or ref == title(entries[0]["Pod"])
    ]
    if len(found) > 1:
        names = ", ".join(sorted(f"{title(pods[id][0]['Pod'])} ({id[:12]})" for id in found))
        raise CliError(f"several pods are named {ref}: {names}; name one by its id")
    return sorted(pods[found[0]], key=_order) if found else []


def _order(entry: dict[str, Any]) -> tuple[str, int]:
    """Return the key that sorts the containers of a pod: by name, the sandbox first."""
    return (str(entry["Pod"].get("Container", "")), int(entry.get("Created") or 0))


def groups(listed: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the ids of the listed containers of each pod, by the title of the pod."""
    result: dict[str, list[str]] = {}
    for entry in listed:
        if pod := entry.get("Pod"):
            result.setdefault(f"pod {title(pod)}", []).append(entry["Id"])
    return result
