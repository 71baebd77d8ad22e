"""Filters of container lists: ``docker ps --filter``. Pure.

Source: Docker Engine API 1.45, ``GET /containers/json``. Any value of one filter may match (of
``label``: every value must). All filters must match.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

from jaula.engine.model.label_filters import (
    Filters,
    check_expressions,
    check_names,
    has_labels,
    has_match,
)
from jaula.engine.networks import network_settings
from jaula.engine.networks.port_bindings import parse_port_range
from jaula.errors import InvalidRequest, NotFound
from jaula.state.container_records import ContainerRecord, Status

if TYPE_CHECKING:
    from jaula.engine.model.container import Container

_KNOWN = frozenset(
    [
        "ancestor",
        "before",
        "expose",
        "exited",
        "health",
        "id",
        "isolation",
        "is-task",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    ]
)
_DIGITS = 18  # of an exit status
_ACTIVE = frozenset({Status.RUNNING, Status.PAUSED, Status.RESTARTING})


class Relations(NamedTuple):
    """How containers relate to other objects of the engine.

    ``network_id`` returns the id of a network by name. ``descendants`` returns the ids of images
    and of those that were built from them.
    """

    network_id: Callable[[str], str]
    descendants: Callable[[Collection[str]], frozenset[str]]


def select(
    containers: Iterable[Container],
    relations: Relations,
    *,
    all: bool,
    limit: int | None,
    filters: Filters,
) -> list[Container]:
    """Return the containers to list, newest first.

    As in Docker, ``before`` and ``since`` select among the running containers without ``all``.

    :raises InvalidRequest: when a filter is unknown or a value is not valid.
    :raises NotFound: when ``before`` or ``since`` name no container.
    """
    check_names(filters, _KNOWN)
    _check_values(filters)
    ordered = sorted(containers, key=lambda c: (c.record.created, c.id), reverse=True)
    everything = all or bool(limit and limit > 0) or bool({"status", "exited"} & filters.keys())
    images = relations.descendants(filters.get("ancestor", ()))
    before, since = _bound(ordered, filters, "before"), _bound(ordered, filters, "since")
    selected = []
    for container in ordered:
        record = container.record
        if not everything and record.status not in _ACTIVE:
            continue
        if before is not None and record.created >= before:
            continue
        if since is not None and record.created <= since:
            continue
        if "ancestor" in filters and record.image not in images:
            continue
        if matches(record, filters, relations.network_id):
            selected.append(container)
            if limit and 0 < limit <= len(selected):
                break
    return selected


def _check_values(filters: Filters) -> None:
    check_expressions("name", (value.removeprefix("/") for value in filters.get("name", ())))
    for value in filters.get("status", ()):
        if value not in tuple(Status):
            raise InvalidRequest(
                f"invalid filter 'status={value}'", hint=f"must be one of {', '.join(Status)}"
            )
    for value in filters.get("exited", ()):
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS):
            raise InvalidRequest(f"invalid filter 'exited={value[:80]}': not a number")
    for value in filters.get("health", ()):
        if value not in ("starting", "healthy", "unhealthy", "none"):
            raise InvalidRequest(f"unrecognized filter value for health: {value}")
    for value in filters.get("is-task", ()):
        if value not in ("true", "1", "false", "0"):
            raise InvalidRequest(f"invalid filter 'is-task=[{value}]'")
    for key in ("publish", "expose"):
        for value in filters.get(key, ()):
            parse_port_range(key, value)


def _bound(ordered: list[Container], filters: Filters, key: str) -> int | None:
    values = filters.get(key)
    if not values:
        return None
    for container in ordered:
        if values[0] and (
            container.name == values[0].removeprefix("/") or container.id.startswith(values[0])
        ):
            return container.record.created
    raise NotFound(f"No such container: {values[0]}")


def matches(record: ContainerRecord, filters: Filters, network_id: Callable[[str], str]) -> bool:
    """Return whether a container passes every filter but ``before``, ``since`` and ``ancestor``."""
    for key, values in filters.items():
        if not values or key in ("before", "since", "ancestor"):
            continue
        if key == "label":
            if not has_labels(record.body.labels, values):
                return False
        elif key == "id":
            if not record.id.startswith(tuple(values)):
                return False
        elif key == "volume":
            names = [name for m in record.mounts for name in (m.name, m.source, m.destination)]
            if frozenset(values).isdisjoint(names):
                return False
        elif key == "network":
            if not _has_network(record, values, network_id):
                return False
        elif key in ("publish", "expose"):
            if not _has_port(record, key, values):
                return False
        elif not any(_fits(record, key, value) for value in values):
            return False
    return True


def _fits(record: ContainerRecord, key: str, value: str) -> bool:
    match key:
        case "name":
            return has_match(value.removeprefix("/"), record.name)
        case "status":
            return record.status == value
        case "exited":
            return record.status is Status.EXITED and record.exit_code == int(value)
        case "health":
            return value == (str(record.health.status) if record.health else "none")
        case "is-task":
            return value in ("false", "0")
        case "isolation":
            return value in ("default", "process")
    return False


def _has_network(
    record: ContainerRecord, values: Iterable[str], network_id: Callable[[str], str]
) -> bool:
    """Return whether a value is the name of a network of the container or begins its id."""
    names = network_settings.networks(record, network_id)
    return any(
        value in names or any(value and network_id(name).startswith(value) for name in names)
        for value in values
    )


def _has_port(record: ContainerRecord, key: str, values: Iterable[str]) -> bool:
    """Return whether ``ps`` shows a port of a range: ``publish`` on the host, else inside.

    The ports are one bit each, so many values and many ports do not multiply.
    """
    member = "PublicPort" if key == "publish" else "PrivatePort"
    by_protocol: dict[str, bytearray] = {}
    for port in network_settings.listed_ports(record):
        if (number := port.get(member, -1)) >= 0:
            shown = by_protocol.setdefault(port["Type"], bytearray(65536))
            shown[number] = 1
    for value in values:
        first, last, protocol = parse_port_range(key, value)
        shown = by_protocol.get(protocol, bytearray())
        if shown.find(1, first, last + 1) >= 0:
            return True
    return False
