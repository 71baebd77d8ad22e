"""Sysctls: the requested values are set in the container's own namespaces (statement I24).

Evidence: /proc/sys, read by a process that has joined the namespaces, because the kernel shows each
reader the values of its own; and /proc/<pid>/net/if_inet6. Without an IPv6 network, the interfaces
have no IPv6, so no router advertisement can give them an address and a route.

A setting that was not requested has the value of new namespaces, which the check makes and reads.
A new network namespace copies net.ipv4.conf from the host. The host's values may have changed since
the container's start, so the kernel's own defaults are accepted there too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from ipaddress import IPv6Address

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.network_view import SETTINGS, read_setting, read_writable_settings
from jaula.features.verify.model.result import Result, quantity, verdict_of
from jaula.kernel.namespace_threads import in_unshared_thread, join_namespaces
from jaula.network.endpoint_config import ipv6_settings
from jaula.security.allowed_sysctls import (
    IPC,
    PING_GROUP_RANGE,
    UTS,
    normalize,
    with_network_defaults,
)
from jaula.spec.runtime_spec import IDMapping

INFO = CheckInfo(
    id="sysctls",
    layer="network",
    title="Kernel settings",
    reason="A sysctl that is not namespaced changes the host; a requested one that is not in "
    "effect leaves a weakness.",
    references=("I18", "I24", "CVE-2020-13401", "CVE-2022-0811", "sysctl(2)"),
    evidence="/proc/sys, read in the container's network, ipc and uts namespaces",
    advice="restart it: its sysctls are set again",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for the requested sysctls and one for IPv6 on the container's interfaces."""
    requested_values = {
        normalize(name): _as_host(name, value, container.linux.gid_mappings)
        for name, value in _expected(container).items()
    }
    names = sorted(requested_values.keys() | {normalize(name) for name in container.linux.sysctl})
    if names:
        actual = read_sysctls(container, names)
        wrong = [
            name for name in names if _plain(actual[name]) != _plain(requested_values.get(name, ""))
        ]
        not_namespaced = [
            name for name in names if not (name.startswith("net/") or name in IPC | UTS)
        ]
        effective = f"{len(names)} set"
        if wrong:
            effective = "; ".join(f"{name} = {actual[name]}" for name in wrong)
        if not_namespaced:
            effective += f"; not namespaced: {', '.join(not_namespaced)}"
        evidence = f"/proc/sys in {container.path('ns')}"
        yield Result("sysctls", "network", quantity(len(requested_values), "setting"), effective,
                  evidence, verdict_of(not wrong and not not_namespaced, None))  # fmt: skip
    yield from _not_requested(container, requested_values.keys())
    if not container.on_engine_network or any("ipv6" in name for name in requested_values):
        return
    assigned = assigned_ipv6(container)
    actual_ipv6 = ipv6_addresses(container)
    extra = [text for text in actual_ipv6 if not is_assigned(text, assigned)]
    requested = ", ".join(map(str, assigned)) or "no address but the loopback's"
    yield Result("ipv6", "network", requested, ", ".join(extra or actual_ipv6) or "none",
              container.path("net/if_inet6"), verdict_of(not extra, None))  # fmt: skip


def _not_requested(container: AuditedContainer, requested: Collection[str]) -> Iterator[Result]:
    """Yield a row for the settings of its own namespaces that no request names."""
    kinds = _own_kinds(container)
    if not kinds:
        return

    def read() -> dict[str, str]:
        join_namespaces(container.pid, kinds)
        return read_writable_settings(kinds)

    networks = (container.inspect.get("NetworkSettings") or {}).get("Networks") or {}
    engine = [
        ipv6_settings(has_address=bool(endpoint.get("GlobalIPv6Address")))
        for endpoint in networks.values()
    ]
    actual, new = in_unshared_thread(read), container.snapshot.new_settings
    wrong = [
        f"{path} = {value}"
        for path, value in actual.items()
        if path not in requested and not is_default(path, value, new, engine)
    ]
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    by = "CAP_NET_ADMIN" if wrong and "CAP_NET_ADMIN" in container.capabilities.bounding else None
    yield Result(
        "other sysctls", "network", "as in new namespaces" + (f" ({by})" if by else ""),
        ", ".join(wrong[:5]) + more if wrong else quantity(len(actual), "setting"),
        f"/proc/sys in {container.path('ns')}", verdict_of(not wrong or by is not None, by),
    )  # fmt: skip


def _own_kinds(container: AuditedContainer) -> list[str]:
    """Return those of ``net`` and ``ipc`` that no other program configures."""
    kinds = ["net"] if container.on_engine_network else []
    if container.text("IpcMode") in ("", "none", "private", "shareable"):
        kinds.append("ipc")
    return kinds


_INTERFACE = re.compile(r"net/(ipv4|ipv6|mpls)/(conf|neigh)/([^/]+)/([^/]+)")
_CONF_DEFAULTS = {
    "accept_redirects": "1",
    "accept_source_route": "1",
    "arp_evict_nocarrier": "1",
    "igmpv2_unsolicited_report_interval": "10000",
    "igmpv3_unsolicited_report_interval": "1000",
    "secure_redirects": "1",
    "send_redirects": "1",
    "shared_media": "1",
}
"""Defaults of net.ipv4.conf that are not 0, net/ipv4/devinet.c."""


def is_default(
    path: str, value: str, new: Mapping[str, str], engine: Sequence[Mapping[str, str]]
) -> bool:
    """Return whether a setting has a value that needs no request. Pure.

    :param path: the setting's path below /proc/sys.
    :param new: the settings of new namespaces.
    :param engine: the IPv6 settings of each endpoint's interface.
    """
    match = _INTERFACE.fullmatch(path)
    if match is None:
        return value == new.get(path, value)  # a module may have been loaded meanwhile
    family, table, interface, name = match.groups()
    if (family, name) == ("ipv6", "mtu") or (family == "ipv4" and name in SETTINGS):
        return True  # that of the link; the check of links has a row for the others
    like = interface if path in new else "default" if table == "conf" else "lo"
    values = {new.get(f"net/{family}/{table}/{like}/{name}", value)}
    if (family, table) == ("ipv4", "conf"):
        values.add(_CONF_DEFAULTS.get(name, "0"))
    if (family, table) == ("ipv6", "conf") and interface not in ("all", "default", "lo"):
        values.update(settings[name] for settings in engine if name in settings)
    return value in values


def _expected(container: AuditedContainer) -> Mapping[str, str]:
    """Return the requested sysctls and the engine's defaults for the container's own network."""
    requested: Mapping[str, str] = container.host_config.get("Sysctls") or {}
    mode = container.text("NetworkMode")
    if mode == "host" or mode.startswith("container:"):
        return requested
    if container.starter is not None:
        return {**container.linux.sysctl, **requested}
    return with_network_defaults(requested, container.linux.gid_mappings)


def _as_host(name: str, value: str, gid_mappings: Sequence[IDMapping]) -> str:
    """Return the value as this process reads it: groups are ids of its own user namespace."""
    if normalize(name) != normalize(PING_GROUP_RANGE):
        return value
    return " ".join(_host_gid(gid, gid_mappings) for gid in value.split())


def _host_gid(gid: str, gid_mappings: Sequence[IDMapping]) -> str:
    for row in gid_mappings:
        if row.container_id <= int(gid) < row.container_id + row.size:
            return str(row.host_id + int(gid) - row.container_id)
    return gid


def assigned_ipv6(container: AuditedContainer) -> list[IPv6Address]:
    """Return the IPv6 addresses that the container's networks assigned."""
    networks = (container.inspect.get("NetworkSettings") or {}).get("Networks") or {}
    addresses = [str(endpoint.get("GlobalIPv6Address") or "") for endpoint in networks.values()]
    return [IPv6Address(text) for text in addresses if text]


def is_assigned(text: str, assigned: Sequence[IPv6Address]) -> bool:
    """Return whether an address was assigned, or is link-local on a container with IPv6."""
    address = IPv6Address(int(text.split()[1], 16))
    return address in assigned or (bool(assigned) and address.is_link_local)


def ipv6_addresses(container: AuditedContainer) -> list[str]:
    """Return interfaces with an IPv6 address; with IPv6 disabled there is not even a local one."""
    try:
        text = container.read("net/if_inet6")
    except FileNotFoundError:  # a kernel without IPv6
        return []
    words = [line.split() for line in text.splitlines()]
    return [f"{word[5]} {word[0]}" for word in words if len(word) == 6 and word[5] != "lo"]


def read_sysctls(container: AuditedContainer, names: Sequence[str]) -> dict[str, str]:
    """Return values by path below /proc/sys, as the container has them; ``?`` if absent.

    A thread joins the namespaces, because the kernel shows each reader its own values.
    """
    kinds = {
        "net" if name.startswith("net/") else "uts" if name in UTS else "ipc" for name in names
    }

    def read() -> dict[str, str]:
        join_namespaces(container.pid, sorted(kinds))
        return {name: read_setting(name) for name in names}

    return in_unshared_thread(read)


def _plain(value: str) -> str:
    return " ".join(value.split())
