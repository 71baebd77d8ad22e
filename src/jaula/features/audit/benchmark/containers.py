"""Section 5: running containers.

Evidence: :mod:`jaula.features.audit.benchmark.container_state`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from jaula.features.audit.benchmark.container_state import ContainerState, names_of
from jaula.features.audit.benchmark.control import (
    Control,
    Judge,
    Judgement,
    Kind,
    Scope,
    fails,
    judged,
    manual,
    not_applicable,
    passes,
)
from jaula.kernel.apparmor_files import parse_current
from jaula.kernel.capabilities import NAMES
from jaula.security import capability_sets

ALLOWED = capability_sets.mask(capability_sets.DEFAULT)
PRIVILEGED_PORTS = 1024  # the first port that every user may bind
ANYWHERE = ("0.0.0.0", "::")
SSH_SERVERS = frozenset({"sshd", "sshd-session", "dropbear", "dropbearmulti"})
MAX_RESTARTS = 5
MAX_OPEN_FILES = 1 << 20
_WORD = re.compile(r"[\w-]+")
_MIN_ALL = len(NAMES) - 3  # capabilities that an older kernel may lack


def apparmor_in_force(state: ContainerState) -> Judgement:
    """Judge the AppArmor profile (5.2)."""
    if state.profile is None:
        return not_applicable("AppArmor is not active on this host")
    mode = parse_current(state.profile)[1]
    holds = mode == "enforce" or (mode == "mixed" and state.stack_enforces)
    return judged(holds, f"profile {state.profile}", "start it without apparmor=unconfined")


def selinux_in_force(state: ContainerState) -> Judgement:
    """Judge the SELinux label (5.3)."""
    if state.label is None:
        return not_applicable("SELinux is not active on this host")
    kind = [*state.label.split(":"), "", "", ""][2]
    holds = bool(kind) and kind not in ("unconfined_t", "spc_t")
    return judged(holds, f"label {state.label}", "start it without label=disable")


def _capabilities(state: ContainerState) -> Judgement:
    extra = state.init.capabilities & ~ALLOWED
    count = (state.init.capabilities & ALLOWED).bit_count()
    if extra:
        return fails(f"beyond the default ones: {names_of(extra)}",
                     "start it without --cap-add and --privileged")  # fmt: skip
    return passes(f"{count} of the {ALLOWED.bit_count()} default ones, no other")


def not_privileged(state: ContainerState) -> Judgement:
    """Judge capabilities together with masked files (5.5)."""
    every = state.init.capabilities.bit_count() >= _MIN_ALL
    return judged(
        not (every and not state.masked),
        f"{state.init.capabilities.bit_count()} capabilities; /proc is "
        f"{'masked' if state.masked else 'not masked'}",
        "start it without --privileged; add the capabilities and devices that it needs",
    )


def _host_directories(state: ContainerState) -> Judgement:
    if state.binds:
        return fails(", ".join(f"{path} at {target}" for path, target in state.binds),
                     "bind the files that it needs, not a directory of the system")  # fmt: skip
    return passes("no mount has a system directory of the host")


def _ssh(state: ContainerState) -> Judgement:
    servers = [
        process.name
        for process in (state.init, *state.others)
        if SSH_SERVERS & set(_WORD.findall(process.name))
    ]
    return judged(not servers, f"ssh servers: {', '.join(servers) or 'none'} of "
                  f"{1 + len(state.others)} processes",
                  "remove it from the image; use jaula exec")  # fmt: skip


def _privileged_ports(state: ContainerState) -> Judgement:
    low = [str(port) for port in state.ports if port.port < PRIVILEGED_PORTS]
    return judged(not low, f"published below 1024: {', '.join(low) or 'none'}",
                  "publish it on a port from 1024")  # fmt: skip


def _needed_ports(state: ContainerState) -> Judgement:
    if not state.ports:
        return passes("no port is published")
    return manual(f"published: {', '.join(map(str, state.ports))}", "confirm that each is needed")


def _bound_ports(state: ContainerState) -> Judgement:
    anywhere = [str(port) for port in state.ports if port.address in ANYWHERE]
    return judged(not anywhere, f"published at every address: {', '.join(anywhere) or 'none'}",
                  "publish it with an address: -p ADDRESS:PORT:PORT")  # fmt: skip


def own_namespace(kind: str, flag: str) -> Judge:
    """Return the judge of one kind of namespace; ``flag`` shares it with the host."""

    def judge(state: ContainerState) -> Judgement:
        shared = kind in state.host_namespaces
        return judged(not shared, f"/proc/{state.init.pid}/ns/{kind} is "
                      f"{'the host' if shared else 'not the host'}'s",
                      f"start it without {flag}")  # fmt: skip

    return judge


def limited_memory(state: ContainerState) -> Judgement:
    """Judge the limit of memory (5.11)."""
    limit = "no limit" if state.memory is None else f"{state.memory} bytes"
    return judged(state.memory is not None, limit, "jaula update --memory SIZE")


def limited_cpu(state: ContainerState) -> Judgement:
    """Judge the limit of processor time (5.12)."""
    return judged(bool(state.cpu), state.cpu or "default share, no quota",
                  "jaula update --cpus NUMBER, or --cpu-shares NUMBER")  # fmt: skip


def read_only_root(state: ContainerState) -> Judgement:
    """Judge the mount of the root (5.13)."""
    return judged(state.read_only, f"/ is mounted {'ro' if state.read_only else 'rw'}",
                  "start it with --read-only, and --tmpfs for what it writes")  # fmt: skip


def _restarts(state: ContainerState) -> Judgement:
    if state.pod:
        return not_applicable("the kubelet restarts containers of pods, with growing delays")
    policy = state.restart_policy
    bounded = policy == "on-failure" and 0 < state.restarts <= MAX_RESTARTS
    number = f":{state.restarts}" if policy == "on-failure" else ""
    return judged(policy == "no" or bounded, f"restart policy {policy}{number}",
                  "jaula update --restart on-failure:5")  # fmt: skip


def no_devices(state: ContainerState) -> Judgement:
    """Judge the device nodes (5.18)."""
    return judged(not state.devices, f"nodes beyond the default ones: "
                  f"{', '.join(state.devices[:10]) or 'none'}",
                  "start it without --device and --privileged")  # fmt: skip


def _ulimits(state: ContainerState) -> Judgement:
    hard = state.nofile
    return judged(hard is not None and hard <= MAX_OPEN_FILES,
                  f"open files: {'unlimited' if hard is None else hard}",
                  "start it with --ulimit nofile=SOFT:HARD")  # fmt: skip


def _propagation(state: ContainerState) -> Judgement:
    return judged(not state.shared_mounts,
                  f"mounts in a peer group of the host: {', '.join(state.shared_mounts) or 'none'}",
                  "mount it without shared and rshared")  # fmt: skip


def seccomp_in_force(state: ContainerState) -> Judgement:
    """Judge the seccomp filter (5.22)."""
    return judged(state.seccomp == 2, f"Seccomp: {state.seccomp} in /proc/{state.init.pid}/status",
                  "start it without seccomp=unconfined and --privileged")  # fmt: skip


def _privileged_exec(state: ContainerState) -> Judgement:
    extra = [
        f"{process.name} ({names_of(process.capabilities & ~state.init.capabilities)})"
        for process in state.others
        if process.capabilities & ~state.init.capabilities
    ]
    return judged(not extra, f"processes with more than init: {', '.join(extra) or 'none'}",
                  "end them; run jaula exec without --privileged")  # fmt: skip


def _root_exec(state: ContainerState) -> Judgement:
    root = [p.name for p in state.others if p.is_exec and p.uid == 0 and state.init.uid != 0]
    count = sum(p.is_exec for p in state.others)
    return judged(not root, f"root of {count} exec sessions: {', '.join(root) or 'none'}",
                  "end them; run jaula exec without --user root")  # fmt: skip


def _cgroup(state: ContainerState) -> Judgement:
    if state.id and state.id not in state.cgroup:
        return fails(f"its cgroup is {state.cgroup}", "restart it; find what moved it")
    if state.cgroup_parent and not state.pod:
        return manual(f"its cgroup is {state.cgroup}, by --cgroup-parent",
                      "confirm that this parent has the intended limits")  # fmt: skip
    return passes(f"its cgroup is {state.cgroup}")


def no_new_privileges(state: ContainerState) -> Judgement:
    """Judge no_new_privs (5.26)."""
    return judged(state.no_new_privs, f"NoNewPrivs: {int(state.no_new_privs)}",
                  "start it with --security-opt no-new-privileges")  # fmt: skip


def _health(state: ContainerState) -> Judgement:
    if state.pod:
        return not_applicable("the kubelet probes containers of pods")
    return judged(state.health in ("healthy", "starting"), state.health or "no health check",
                  "start it with --health-cmd, or add HEALTHCHECK to its image")  # fmt: skip


def _latest_image(state: ContainerState) -> Judgement:
    if state.newer_image:
        return fails(f"{state.image} is another image now", "create it anew from the image")
    return manual(f"{state.image} is still this image here", "pull it, and see if it changes")


def limited_pids(state: ContainerState) -> Judgement:
    """Judge the limit of processes (5.29)."""
    return judged(state.pids is not None, "no limit" if state.pids is None else str(state.pids),
                  "jaula update --pids-limit NUMBER")  # fmt: skip


def _default_bridge(state: ContainerState) -> Judgement:
    return judged(not state.on_default_bridge,
                  f"{'on' if state.on_default_bridge else 'not on'} the default bridge",
                  "create a network and start it with --network NAME")  # fmt: skip


def no_engine_socket(state: ContainerState) -> Judgement:
    """Judge the sockets of engines (5.32)."""
    if state.control_sockets:
        return fails(f"control sockets of the host at {', '.join(state.control_sockets)}",
                     "do not bind an engine's socket")  # fmt: skip
    if state.engine_socket:
        return manual(f"a socket of its own with access {state.engine_socket}",
                      "confirm the rights of [container.NAME] in the policy")  # fmt: skip
    return passes("no control socket of the host is mounted")


def _control(
    id: str, level: int, title: str, judge: Callable[[ContainerState], Judgement]
) -> Control:
    return Control(id, level, (Scope.CONTAINERS,), title, {Kind.CONTAINER: judge})


CONTROLS: tuple[Control, ...] = (
    _control("5.2", 1, "An AppArmor profile is in force", apparmor_in_force),
    _control("5.3", 2, "An SELinux label confines the container", selinux_in_force),
    _control("5.4", 1, "No capability beyond the default ones", _capabilities),
    _control("5.5", 1, "The container is not privileged", not_privileged),
    _control("5.6", 1, "No system directory of the host is mounted", _host_directories),
    _control("5.7", 1, "No ssh server runs inside", _ssh),
    _control("5.8", 1, "No privileged port of the host is published", _privileged_ports),
    _control("5.9", 1, "Only needed ports are published", _needed_ports),
    _control("5.10", 1, "Own network namespace", own_namespace("net", "--network host")),
    _control("5.11", 1, "Memory is limited", limited_memory),
    _control("5.12", 1, "Processor time is limited", limited_cpu),
    _control("5.13", 1, "The root file system is read-only", read_only_root),
    _control("5.14", 1, "Ports are published at one address", _bound_ports),
    _control("5.15", 1, "Restarts after failures are bounded", _restarts),
    _control("5.16", 1, "Own pid namespace", own_namespace("pid", "--pid host")),
    _control("5.17", 1, "Own ipc namespace", own_namespace("ipc", "--ipc host")),
    _control("5.18", 1, "No device of the host inside", no_devices),
    _control("5.19", 1, "Open files are limited", _ulimits),
    _control("5.20", 1, "Mounts do not propagate to the host", _propagation),
    _control("5.21", 1, "Own uts namespace", own_namespace("uts", "--uts host")),
    _control("5.22", 1, "A seccomp filter is in force", seccomp_in_force),
    _control("5.23", 2, "No privileged exec session", _privileged_exec),
    _control("5.24", 2, "No exec session of root", _root_exec),
    _control("5.25", 1, "The container is in its cgroup", _cgroup),
    _control("5.26", 1, "Processes gain no privileges", no_new_privileges),
    _control("5.27", 1, "Health is checked", _health),
    _control("5.28", 1, "The image is the latest of its name", _latest_image),
    _control("5.29", 1, "The number of processes is limited", limited_pids),
    _control("5.30", 2, "The default bridge is not used", _default_bridge),
    _control("5.31", 1, "Own user namespace", own_namespace("user", "--userns host")),
    _control("5.32", 1, "No engine's socket is mounted", no_engine_socket),
)
