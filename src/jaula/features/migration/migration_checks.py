"""The checks before a migration: rows that an operator reads, each with the way out. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from jaula.engine.networks import endpoints
from jaula.errors import InvalidRequest
from jaula.spec.api_documents import AddressMode, ContainerCreate, VolumeMode
from jaula.spec.api_networks import EndpointSettings, NetworkingConfig
from jaula.spec.migration import CheckRow, HostAnswer, HostDescription, Offer, OfferedNetwork
from jaula.spec.units import bytes_size
from jaula.state.container_records import ContainerRecord, MountRecord

_NUMBERS = re.compile(r"\d+")
_SHOWN_FEATURES = 6
_MEMORY_RESERVE = 64 << 20  # bytes beyond what the processes use now


def check_record(record: ContainerRecord) -> None:
    """Check that a container does not depend on other objects of its engine.

    :raises InvalidRequest: with the way out.
    """
    modes, resolved = record.resolved.namespaces, record.resolved
    for problem, hint in (
        ("it has the network of the host" if modes.net.host else "", "use a bridge network"),
        ("it is linked to another container" if resolved.links else "", "use a network"),
        ("it has volumes of another container" if resolved.volumes_from else "", "name them"),
        ("it is a honeypot" if record.body.host_config.profile == "honeypot" else "", "stop it"),
    ):
        if problem:
            raise InvalidRequest(problem, hint=hint)


def check_namespaces(
    record: ContainerRecord,
    owners: Mapping[str, ContainerRecord],
    running: Iterable[ContainerRecord],
    group: Collection[str],
) -> None:
    """Check that all containers that share namespaces with a container move with it.

    ``owners`` are those whose namespaces it joins, by id, and ``group`` the ids that move as one.

    :raises InvalidRequest: with the missing one, and the command that moves both.
    """
    for kind, owner in sorted(record.resolved.namespaces.containers().items()):
        if owner not in group:
            other = owners[owner]
            raise InvalidRequest(
                f"it is in the {kind} namespace of container {other.name}, which does not move",
                hint=_move_both(other, record),
            )
    for each in running:
        for kind, owner in sorted(each.resolved.namespaces.containers().items()):
            if owner == record.id and each.id not in group:
                raise InvalidRequest(
                    f"container {each.name} is in its {kind} namespace, and does not move",
                    hint=_move_both(record, each),
                )


def _move_both(owner: ContainerRecord, member: ContainerRecord) -> str:
    if owner.sandbox is not None:
        return f"move the pod: jaula container migrate --pod {owner.id[:12]} --to tcp://HOST:2376"
    names = f"{owner.name} {member.name}"
    return f"move both: jaula container migrate {names} --to tcp://HOST:2376"


class HostComparison(msgspec.Struct, frozen=True):
    """Two hosts, and the rows about moves in both directions."""

    here: HostAnswer
    there: HostAnswer
    to_there: tuple[CheckRow, ...]
    to_here: tuple[CheckRow, ...]


def compare(here: HostAnswer, there: HostAnswer) -> HostComparison:
    """Return the comparison of this host and another one."""
    return HostComparison(here, there, _check_peers(here, there), _check_peers(there, here))


def _check_peers(source: HostAnswer, target: HostAnswer) -> tuple[CheckRow, ...]:
    return (
        check_protocol(source.version, target.version),
        *check_hosts(source.host, target.host),
    )


def check_hosts(source: HostDescription, target: HostDescription) -> list[CheckRow]:
    """Return the rows that compare two hosts."""
    rows = []
    same = source.architecture == target.architecture and source.page_size == target.page_size
    rows.append(
        CheckRow(
            "architecture",
            same,
            f"{source.architecture}, pages of {source.page_size} bytes"
            + ("" if same else f"; target {target.architecture}, {target.page_size}"),
            "" if same else "choose a host with the same architecture",
        )
    )
    missing = sorted(set(source.cpu_features) - set(target.cpu_features))
    rows.append(
        CheckRow(
            "processor",
            not missing,
            f"the target lacks {_first(missing)}" if missing else "has all features",
            "choose a host with the same processor or a newer one" if missing else "",
        )
    )
    older = _version(target.kernel) < _version(source.kernel)
    rows.append(
        CheckRow(
            "kernel",
            not older,
            f"{source.kernel} to {target.kernel}",
            "programs may use what an older kernel lacks: update the target" if older else "",
        )
    )
    rows.append(_check_criu(source.criu, target.criu))
    weaker = target.landlock < source.landlock
    rows.append(
        CheckRow(
            "Landlock",
            not weaker,
            f"ABI {source.landlock} to {target.landlock}",
            "the container would be less confined: update the target's kernel" if weaker else "",
        )
    )
    lost = source.apparmor and not target.apparmor
    rows.append(
        CheckRow(
            "AppArmor",
            not lost,
            "the target does not have it" if lost else "the profile is that of the target",
            "the container would lose its profile: enable AppArmor at the target" if lost else "",
        )
    )
    return rows


def check_protocol(source: int, target: int) -> CheckRow:
    """Return the row about the versions of the protocol."""
    passed = source == target
    detail = f"version {source}" + ("" if passed else f", and the target has {target}")
    return CheckRow("protocol", passed, detail, "" if passed else "update the older engine")


def _first(names: Sequence[str]) -> str:
    """Return the first names, and how many there are beyond."""
    more = len(names) - _SHOWN_FEATURES
    return ", ".join(names[:_SHOWN_FEATURES]) + (f" and {more} more" if more > 0 else "")


def _check_criu(source: str, target: str) -> CheckRow:
    if not target:
        return CheckRow("CRIU", False, "not installed at the target", "install the package criu")
    older = _version(target) < _version(source)
    hint = "install the source's version or a newer one at the target" if older else ""
    return CheckRow("CRIU", not older, f"{source} to {target}", hint)


def _version(text: str) -> tuple[int, ...]:
    """Return major and minor."""
    return tuple(int(number) for number in _NUMBERS.findall(text)[:2])


def check_memory(needed: int, available: int) -> CheckRow:
    """Return the row about memory; both values are bytes."""
    passed = needed + _MEMORY_RESERVE <= available
    detail = f"{bytes_size(needed)} of {bytes_size(available)} available"
    return CheckRow("memory", passed, detail, "" if passed else "free memory at the target")


def check_mounts(mounts: Sequence[MountRecord], mode: VolumeMode) -> CheckRow:
    """Return the row about volumes and bind mounts."""
    binds = [mount.source for mount in mounts if mount.type == "bind"]
    volumes = [mount for mount in mounts if mount.type == "volume"]
    others = [mount.type for mount in mounts if mount.type not in ("bind", "volume", "tmpfs")]
    if others:
        return CheckRow(
            "mounts", False, f"mounts of type {others[0]} are not moved", "create it without"
        )
    if binds and mode is not VolumeMode.SHARED:
        return CheckRow(
            "mounts",
            False,
            f"{binds[0]} is a directory of this host",
            "use --volumes shared if the target has the same files there, or a volume",
        )
    if mode is VolumeMode.SHARED and (volumes or binds):
        return CheckRow("mounts", True, "the same storage at the target (--volumes shared)")
    return CheckRow("mounts", True, f"{len(volumes)} volumes are copied" if volumes else "none")


class AddressChoice:
    """The decision about addresses: ``keep``, and the row that says why."""

    def __init__(self, row: CheckRow, *, keep: bool) -> None:
        self.row = row
        self.keep = keep


def choose_addresses(
    mode: AddressMode, networks: Sequence[OfferedNetwork], problems: Sequence[str]
) -> AddressChoice:
    """Decide whether the container keeps its addresses.

    ``problems`` say why the target's networks cannot give them to it.
    """
    if not networks:
        return AddressChoice(CheckRow("addresses", True, "none of its own"), keep=True)
    own = ", ".join(address for each in networks if (address := each.ipv4 or each.ipv6))
    if mode is AddressMode.NEW:
        detail = "new ones; established TCP connections are closed"
        return AddressChoice(CheckRow("addresses", True, detail), keep=False)
    if not problems:
        return AddressChoice(CheckRow("addresses", True, f"keeps {own}"), keep=True)
    if mode is AddressMode.KEEP:
        hint = "create the network there with the same subnet, or use --new-address"
        return AddressChoice(CheckRow("addresses", False, problems[0], hint), keep=True)
    detail = f"new ones, and established TCP connections are closed: {problems[0]}"
    return AddressChoice(CheckRow("addresses", True, detail), keep=False)


def request_at_target(offer: Offer, *, keep_address: bool, image: str) -> ContainerCreate:
    """Return the create request of the container at the target.

    Its host name is the one it has, since its processes know it. ``image`` is the image's name or
    id there. Without ``keep_address`` the request names no address.
    """
    replace = msgspec.structs.replace
    body = replace(offer.body, image=image)
    configured = body.networking_config.endpoints_config
    settings = {
        network.name: configured.get(network.name, EndpointSettings()) for network in offer.networks
    }
    if not keep_address:
        body = replace(body, mac_address="")
        settings = {
            name: replace(each, ipam_config=None, mac_address="") for name, each in settings.items()
        }
    if not endpoints.shares_network(body.host_config.network_mode):
        body = replace(body, networking_config=NetworkingConfig(endpoints_config=settings))
    return body
