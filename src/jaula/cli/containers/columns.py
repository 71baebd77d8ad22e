"""Columns of ``jaula ps``, computed from the documents of ``GET /containers/json``."""

from __future__ import annotations

from jaula.cli.output import times
from jaula.cli.output.list_output import ellipsis, short_id
from jaula.spec import units
from jaula.spec.fast_json import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.cli.output.list_output import Column

DEFAULT = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"

# the name of a container's pod
NAME_LABEL = "io.jaula.pod"
PODS = "\t{{.Namespace}}\t{{.Pod}}"


def columns(*, no_trunc: bool) -> dict[str, Column]:
    """Return the columns; ``no_trunc`` is the flag ``--no-trunc``."""

    def image(item: Any) -> str:
        name = item["Image"] or "<no image>"
        if no_trunc or not name.startswith("sha256:"):
            return str(name)
        return short_id(name)

    def command(item: Any) -> str:
        text = item["Command"] or ""
        return encode(text if no_trunc else ellipsis(text, 20))

    return {
        "ID": ("CONTAINER ID", lambda item: short_id(item["Id"], no_trunc)),
        "Names": ("NAMES", names),
        "Image": ("IMAGE", image),
        "Command": ("COMMAND", command),
        "CreatedAt": ("CREATED AT", lambda item: times.local(item["Created"])),
        "RunningFor": ("CREATED", lambda item: times.ago(item["Created"])),
        "Pod": ("POD", pod),
        "Namespace": ("NAMESPACE", lambda item: (item.get("Pod") or {}).get("Namespace", "")),
        "Ports": ("PORTS", lambda item: ports(item.get("Ports") or [])),
        "State": ("STATE", lambda item: item["State"]),
        "Status": ("STATUS", lambda item: item["Status"]),
        "Size": ("SIZE", size),
        "Labels": ("LABELS", lambda item: ",".join(
            f"{key}={value}" for key, value in sorted((item.get("Labels") or {}).items()))),
        "Label": (
            lambda name: name.rpartition(".")[2].replace("-", " ").upper(),
            lambda item: lambda name: (item.get("Labels") or {}).get(name, ""),
        ),
        "LocalVolumes": ("LOCAL VOLUMES", lambda item: str(sum(
            mount.get("Driver") == "local" for mount in item.get("Mounts") or ()))),
        "Mounts": ("MOUNTS", lambda item: ",".join(
            ellipsis(mount.get("Name") or mount.get("Source") or "", 4096 if no_trunc else 15)
            for mount in item.get("Mounts") or ())),
        "Networks": ("NETWORKS", lambda item: ",".join(
            (item.get("NetworkSettings") or {}).get("Networks") or {})),
    }  # fmt: skip


def names(item: Any) -> str:
    """Return the container's names without their slash; names from legacy links are left out."""
    result = [name.removeprefix("/") for name in item.get("Names") or ()]
    return ",".join(name for name in result if "/" not in name)


def pod(item: Any) -> str:
    """Return the name of the pod: a kubelet's, or one of ``pod create``."""
    name = (item.get("Pod") or {}).get("Name")
    return str(name or (item.get("Labels") or {}).get(NAME_LABEL, ""))


def size(item: Any) -> str:
    """Return ``2B (virtual 4.27MB)``: the size of the writable layer, and with its image."""
    writable, total = item.get("SizeRw") or 0, item.get("SizeRootFs") or 0
    text = units.human_size(writable, 3)
    return f"{text} (virtual {units.human_size(total, 3)})" if total else text


def ports(bindings: list[dict[str, Any]]) -> str:
    """Return ``0.0.0.0:80->80/tcp, 443/tcp``; consecutive ports are merged into a range."""
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for port in sorted(
        bindings, key=lambda port: (port["PrivatePort"], port.get("PublicPort") or 0)
    ):
        key = (port.get("IP") or "", port["Type"])
        pair = (port["PrivatePort"], port.get("PublicPort") or 0)
        groups.setdefault(key, []).append(pair)
    parts: list[tuple[int, str]] = []
    for (address, protocol), pairs in groups.items():
        start = previous = pairs[0]
        for pair in [*pairs[1:], (-1, -1)]:
            step = (previous[0] + 1, previous[1] + 1 if previous[1] else 0)
            if pair != step:
                parts.append((start[0], _span(address, protocol, start, previous)))
                start = pair
            previous = pair
    return ", ".join(text for _, text in sorted(parts, key=lambda part: part[0]))


def _span(address: str, protocol: str, first: tuple[int, int], last: tuple[int, int]) -> str:
    container = str(first[0]) if first[0] == last[0] else f"{first[0]}-{last[0]}"
    if not first[1]:
        return f"{container}/{protocol}"
    published = str(first[1]) if first[1] == last[1] else f"{first[1]}-{last[1]}"
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{published}->{container}/{protocol}"
