"""Section 2: how the engine runs.

Evidence: the process that holds the API socket, its TCP sockets and how they answer, the ports of
the default bridge, the tables of nft, the processes of containers; and the engine's own documents
for settings that leave no trace in the kernel.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import msgspec

from jaula.features.audit.benchmark.container_state import ContainerState
from jaula.features.audit.benchmark.control import (
    Control,
    Judge,
    Judgement,
    Kind,
    Scope,
    fails,
    judged,
    manual,
    passes,
    unknown,
)
from jaula.network.firewall.bridge_rules import table_name
from jaula.spec import log_drivers

BRIDGE_NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
PROXIES = ("docker-proxy", "rootlessport")
SWARM_PORTS = (2377, 7946)
TIMEOUT = 2.0  # seconds for a connection to a TCP socket of the engine
_API_HEADER = b"api-version:"
_LISTEN = "0A"  # state in /proc/net/tcp


class Listener(msgspec.Struct, frozen=True):
    """A TCP socket of the engine: ``answer`` is what a client without a certificate gets.

    It is ``plain`` (an answer without TLS), ``tls`` (an answer over TLS), or '' (none).
    """

    address: str
    port: int
    answer: str


class EngineProcess(msgspec.Struct, frozen=True):
    """The process that serves the API socket; ``children`` are names of processes."""

    pid: int
    uid: int
    arguments: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    children: tuple[str, ...] = ()


class EngineSettings(msgspec.Struct, frozen=True):
    """Settings of the engine that its controls need; '' for a file that is not set."""

    default_profile: str = "default"
    nofile: tuple[int, int] = (1024, 524288)  # soft, hard
    pids_limit: int = 4096
    cgroup_parent: str = "jaula"
    tls_authority: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    certificates: tuple[str, ...] = ()  # directories of registries' certificates
    config_file: str = "/etc/jaula/daemon.json"
    policy: str = "/etc/jaula/policy.toml"
    cri: bool = False


class BridgeState(msgspec.Struct, frozen=True):
    """The default bridge: how many ports it has, and how many of these are isolated."""

    name: str
    ports: int
    isolated: int
    icc: bool = True  # as requested


class EngineState(msgspec.Struct, frozen=True):
    """The engine as its controls need it; ``tables`` and ``process`` are None if not readable."""

    info: Mapping[str, Any]
    version: Mapping[str, Any]
    settings: EngineSettings | None = EngineSettings()
    process: EngineProcess | None = None
    bridge: BridgeState = BridgeState("jaula0", 0, 0)
    tables: frozenset[str] | None = frozenset()
    aufs_mounts: int = 0
    policy_exists: bool = False
    image_policy: str = "accept"  # the general rule; '' if the policy cannot be read
    image_policy_path: str = ""
    containers: tuple[ContainerState, ...] = ()
    images: int = 0
    unused_images: int = 0
    stopped_containers: int = 0
    audit_log: tuple[str, ...] | None = None  # errors of its chain; None if it is not read


# -- reading ----------------------------------------------------------------------------------


def find_process(socket_path: str, proc: str = "/proc") -> EngineProcess | None:
    """Return the process that serves a unix socket, None if it is not found.

    Process 1 holds the socket too if systemd has opened it.

    :raises OSError: when the tables of sockets cannot be read.
    """
    inodes = _unix_inodes(Path(proc, "net/unix").read_text(errors="replace"), socket_path)
    holder = None
    for pid in _pids(proc):
        if inodes & _sockets(proc, pid):
            holder = pid
            if pid != 1:
                break
    return None if holder is None else read_process(holder, proc)


def read_process(holder: int, proc: str = "/proc") -> EngineProcess:
    """Return the process of an engine. Its TCP sockets are asked in the caller's network.

    :raises OSError: when it cannot be read.
    """
    uid = Path(proc, str(holder)).stat().st_uid
    words = Path(proc, str(holder), "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    own = _sockets(proc, holder)
    listeners = []
    for name in ("tcp", "tcp6"):
        text = Path(proc, str(holder), "net", name).read_text()
        listeners += [(a, p) for a, p, inode in parse_tcp(text) if inode in own]
    return EngineProcess(
        holder, uid, tuple(words[:-1]),
        tuple(Listener(address, port, answer_of(address, port)) for address, port in listeners),
        tuple(_children(proc, holder)),
    )  # fmt: skip


def _unix_inodes(text: str, path: str) -> set[int]:
    """Return the inodes of listening unix sockets at a path, from /proc/net/unix. Pure."""
    inodes = set()
    for line in text.splitlines()[1:]:
        fields = line.split(" ", 7)
        # Num, RefCount, Protocol, Flags, Type, St, then the inode padded to five places.
        rest = line.split(None, 7)
        if len(fields) == 8 and len(rest) == 8 and rest[3] == "00010000" and rest[7] == path:
            inodes.add(int(rest[6]))
    return inodes


def parse_tcp(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield address, port and inode of each listening socket in /proc/net/tcp or tcp6. Pure."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _LISTEN:
            continue
        digits, _, port = fields[1].partition(":")
        words = struct.unpack(f">{len(digits) // 8}I", bytes.fromhex(digits))
        raw = struct.pack(f"={len(words)}I", *words)
        address = IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
        yield str(address), int(port, 16), int(fields[9])


def _pids(proc: str) -> list[int]:
    return sorted(int(name) for name in os.listdir(proc) if name.isascii() and name.isdigit())


def _sockets(proc: str, pid: int) -> set[int]:
    """Return the inodes of a process's open sockets; none if it has exited or may not be read."""
    inodes = set()
    try:
        for name in os.listdir(f"{proc}/{pid}/fd"):
            try:
                target = os.readlink(f"{proc}/{pid}/fd/{name}")
            except FileNotFoundError:
                continue
            if target.startswith("socket:["):
                inodes.add(int(target[8:-1]))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return set()
    return inodes


def child_pids(pid: int, proc: str = "/proc") -> Iterator[int]:
    """Yield the child processes of a process."""
    for other, parent, _ in _stats(proc):
        if parent == pid:
            yield other


def _children(proc: str, pid: int) -> Iterator[str]:
    for _, parent, name in _stats(proc):
        if parent == pid:
            yield name


def _stats(proc: str) -> Iterator[tuple[int, int, str]]:
    """Yield pid, parent and name of each process."""
    for pid in _pids(proc):
        try:
            text = Path(proc, str(pid), "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, _, fields = text.partition("(")[2].rpartition(") ")
        yield pid, int(fields.split(" ", 2)[1]), name


def answer_of(address: str, port: int) -> str:
    """Return how the API answers a client without a certificate: ``plain``, ``tls`` or ''.

    A refusal by the policy is an answer. The server of pods' streams has no API.
    """
    import ssl

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name in ("plain", "tls"):
        try:
            with socket.create_connection((host, port), TIMEOUT) as plain:
                stream = context.wrap_socket(plain) if name == "tls" else plain
                with stream:
                    stream.settimeout(TIMEOUT)
                    stream.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    if _API_HEADER in stream.recv(4096).lower():
                        return name
        except OSError:
            continue  # it is refused: ssl.SSLError is an OSError
    return ""


def read_bridge(networks: list[dict[str, Any]], sys: str = "/sys") -> BridgeState:
    """Return the state of the default bridge from its network document and its ports."""
    document = next((n for n in networks if n.get("Name") == "bridge"), {})
    options = document.get("Options") or {}
    name = str(options.get(BRIDGE_NAME) or "")
    ports = sorted(Path(sys, "class/net", name, "brif").glob("*")) if name else []
    isolated = sum(
        (port / "brport" if (port / "brport").is_dir() else port)
        .joinpath("isolated")
        .read_text()
        .strip()
        == "1"
        for port in ports
    )
    return BridgeState(name, len(ports), isolated, str(options.get(ICC, "true")) != "false")


# -- judges -----------------------------------------------------------------------------------


def _unprivileged(state: EngineState) -> Judgement:
    if state.process is None:
        return unknown("the engine's process was not found in /proc")
    evidence = f"process {state.process.pid} has uid {state.process.uid}"
    if state.process.uid != 0:
        return passes(evidence)
    return manual(evidence, "run a rootless engine if its limits permit it (docs/rootless.md)")


def _traffic(state: EngineState) -> Judgement:
    bridge = state.bridge
    evidence = f"{bridge.isolated} of {bridge.ports} ports of {bridge.name} are isolated"
    remediation = "give containers networks of their own, each with the option enable_icc=false"
    if not bridge.ports:
        option = "enabled" if bridge.icc else "disabled"
        return judged(
            not bridge.icc, f"icc of {bridge.name} is {option}; it has no ports", remediation
        )
    return judged(bridge.isolated == bridge.ports, evidence, remediation)


def _log_level(state: EngineState) -> Judgement:
    debug = bool(state.info.get("Debug"))
    return judged(
        not debug, f"debug is {'on' if debug else 'off'}", "run the engine without --debug"
    )


def firewall_loaded(state: EngineState) -> Judgement:
    """Judge the tables of nft (2.4)."""
    if state.tables is None:
        return unknown("nft cannot list the tables")
    table = table_name(state.bridge.name)
    loaded = table in state.tables
    return judged(
        loaded, f"nft table ip {table} is {'loaded' if loaded else 'absent'}",
        "restart the engine; it loads its tables",
    )  # fmt: skip


def _registries(state: EngineState) -> Judgement:
    config = state.info.get("RegistryConfig") or {}
    insecure = [
        str(network)
        for network in config.get("InsecureRegistryCIDRs") or ()
        if not str(network).startswith(("127.", "::1/"))
    ]
    indexes = config.get("IndexConfigs") or {}
    insecure += [str(name) for name, index in indexes.items() if not index.get("Secure")]
    return judged(
        not insecure, f"insecure registries: {', '.join(insecure) or 'none besides loopback'}",
        "give them certificates, and remove insecure-registries",
    )  # fmt: skip


def _aufs(state: EngineState) -> Judgement:
    driver = state.info.get("Driver")
    return judged(
        driver != "aufs", f"storage driver {driver}; {state.aufs_mounts} mounts of aufs",
        "use another storage driver",
    )  # fmt: skip


def tls_required(state: EngineState) -> Judgement:
    """Judge the TCP sockets (2.7)."""
    if state.process is None:
        return unknown("the engine's process was not found in /proc")
    if not state.process.listeners:
        return passes("the engine listens on no TCP socket")
    for listener in state.process.listeners:
        address = f"{listener.address}:{listener.port}"
        if listener.answer:
            how = "without TLS" if listener.answer == "plain" else "without a client's certificate"
            return fails(f"{address} answers {how}", "use --tlsverify with --tlscacert")
    number = len(state.process.listeners)
    return passes(f"{number} TCP sockets answer no client without a certificate")


def default_limits(state: EngineState) -> Judgement:
    """Judge the default limits (2.8)."""
    if state.settings is None:
        return unknown("the engine's settings cannot be read")
    soft, hard = state.settings.nofile
    limited = [c for c in state.containers if c.nofile is not None]
    evidence = (
        f"default {soft}:{hard} open files, {state.settings.pids_limit} processes; "
        f"in effect in {len(limited)} of {len(state.containers)} containers"
    )
    holds = state.settings.pids_limit > 0 and len(limited) == len(state.containers)
    return judged(holds, evidence, "set --nofile and --pids-limit")


def user_namespaces(state: EngineState) -> Judgement:
    """Judge the default user namespace (2.9)."""
    options = state.info.get("SecurityOptions") or ()
    own = sum("user" not in c.host_namespaces for c in state.containers)
    return judged(
        "name=userns" in options,
        f"the engine {'gives' if 'name=userns' in options else 'does not give'} containers user "
        f"namespaces; {own} of {len(state.containers)} have one",
        "set user.max_user_namespaces above 0 and restart the engine",
    )


def in_cgroup_parent(state: EngineState) -> Judgement:
    """Judge the cgroups of containers (2.10)."""
    if state.settings is None:
        return unknown("the engine's settings cannot be read")
    parent = state.settings.cgroup_parent
    outside = [
        c.name
        for c in state.containers
        if not c.cgroup_parent and f"/{parent.strip('/')}/" not in c.cgroup
    ]
    return judged(
        not outside,
        f"parent {parent}; outside of it: {', '.join(outside) or 'none'} "
        f"of {len(state.containers)} containers",
        "restart the containers; find what moved them",
    )


def _base_device(state: EngineState) -> Judgement:
    driver = state.info.get("Driver")
    return judged(driver != "devicemapper", f"storage driver {driver} has no base device",
                  "do not set dm.basesize")  # fmt: skip


def _authorization(state: EngineState) -> Judgement:
    if state.settings is None:
        return unknown("the engine's settings cannot be read")
    if state.policy_exists:
        return passes(f"each request is authorized by {state.settings.policy}")
    return passes(
        "each request is authorized by the built-in rules: the socket's group runs containers "
        "with the defaults"
    )


def _central_log(state: EngineState) -> Judgement:
    driver = str(state.info.get("LoggingDriver"))
    return judged(driver in log_drivers.SENDING, f"log driver {driver}",
                  f"set --log-driver to one of {', '.join(log_drivers.SENDING)}")  # fmt: skip


def _new_privileges(state: EngineState) -> Judgement:
    if state.settings is None:
        return unknown("the engine's settings cannot be read")
    profile = state.settings.default_profile
    number = sum(c.no_new_privs for c in state.containers)
    return judged(
        profile == "strict",
        f"default profile {profile}; no_new_privs is set in {number} of "
        f"{len(state.containers)} containers",
        "run the engine with --default-profile strict",
    )


def _live_restore(state: EngineState) -> Judgement:
    enabled = bool(state.info.get("LiveRestoreEnabled"))
    return judged(enabled, f"live restore is {'on' if enabled else 'off'}",
                  "upgrade the engine: containers outlive it")  # fmt: skip


def _proxy(state: EngineState) -> Judgement:
    if state.process is None:
        return unknown("the engine's process was not found in /proc")
    proxies = [name for name in state.process.children if name in PROXIES]
    return judged(
        not proxies, f"proxies among the engine's processes: {', '.join(proxies) or 'none'}; "
        "published ports are elements of nft maps", "stop them",
    )  # fmt: skip


def seccomp_in_force(state: EngineState) -> Judgement:
    """Judge the default seccomp profile (2.17)."""
    options = [str(o) for o in state.info.get("SecurityOptions") or ()]
    profile = next((o for o in options if o.startswith("name=seccomp")), "")
    number = sum(c.seccomp == 2 for c in state.containers)
    return judged(
        bool(profile) and not profile.endswith("unconfined"),
        f"{profile or 'no seccomp'}; filtered: {number} of {len(state.containers)} containers",
        "use a kernel with CONFIG_SECCOMP_FILTER",
    )


def _experimental(state: EngineState) -> Judgement:
    details = [part.get("Details") or {} for part in state.version.get("Components") or ()]
    on = any(d.get("Experimental") == "true" for d in details)
    on = on or bool(state.info.get("ExperimentalBuild"))
    return judged(not on, f"experimental features are {'on' if on else 'off'}", "turn them off")


def _swarm(state: EngineState) -> Judgement:
    node = str((state.info.get("Swarm") or {}).get("LocalNodeState"))
    if state.process is None:
        return unknown("the engine's process was not found in /proc")
    ports = [str(s.port) for s in state.process.listeners if s.port in SWARM_PORTS]
    return judged(
        node == "inactive" and not ports,
        f"swarm is {node}; the engine listens on {', '.join(ports) or 'none'} of its ports",
        "leave the swarm",
    )


def _control(id: str, level: int, title: str, judge: Judge) -> Control:
    scope = Scope.CONTAINERS if id.startswith("5.") else Scope.ENGINE
    return Control(id, level, (scope,), title, {Kind.ENGINE: judge})


CONTROLS: tuple[Control, ...] = (
    _control("2.1", 1, "The engine runs without root, if possible", _unprivileged),
    _control("2.2", 1, "Containers of the default bridge cannot reach each other", _traffic),
    _control("2.3", 1, "The log level is info", _log_level),
    _control("2.4", 1, "The engine maintains the packet filter", firewall_loaded),
    _control("2.5", 1, "No insecure registry is used", _registries),
    _control("2.6", 1, "The storage driver is not aufs", _aufs),
    _control("2.7", 1, "TCP sockets require TLS and client certificates", tls_required),
    _control("2.8", 1, "Default ulimits are set", default_limits),
    _control("2.9", 2, "Containers have user namespaces", user_namespaces),
    _control("2.10", 2, "Containers are in the engine's cgroup", in_cgroup_parent),
    _control("2.11", 2, "The size of the base device is unchanged", _base_device),
    _control("2.12", 2, "Requests of clients are authorized", _authorization),
    _control("2.13", 2, "Logs go to a central service", _central_log),
    _control("2.14", 1, "Containers gain no privileges by default", _new_privileges),
    _control("2.15", 1, "Containers outlive a restart of the engine", _live_restore),
    _control("2.16", 1, "No proxy in user space carries published ports", _proxy),
    _control("2.17", 2, "A seccomp profile is the default", seccomp_in_force),
    _control("2.18", 1, "Experimental features are off", _experimental),
    _control("5.1", 1, "Swarm mode is off", _swarm),
)
