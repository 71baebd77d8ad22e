"""Probes of kernel features, without permanent changes.

A probe returns None if the feature works, otherwise the kernel's error. Probes that create
namespaces or devices run in a child process, in namespaces that end with it.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaula import feature
from jaula.cgroups import hierarchies
from jaula.kernel import (
    mountinfo,
    mounts,
    namespaces,
    netlink,
    process_calls,
    rtnetlink,
    seccomp,
)
from jaula.kernel import (
    openat2 as openat2_call,
)
from jaula.kernel.child_process import run_in_child
from jaula.kernel.namespaces import CLONE
from jaula.security.lsm import detect

if TYPE_CHECKING:
    from jaula.features.checkpoint.runtime.probe import CriuReport

Probe = Callable[[], str | None]

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_NO_CHECKPOINTS = "the feature checkpoint is not installed"
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_STATUS = (2, 3)  # NLMSG_ERROR, NLMSG_DONE
_DIAGNOSTICS = {  # requests of sock_diag(7), linux/{unix,inet,packet,netlink}_diag.h
    "unix": struct.pack("=BB22x", socket.AF_UNIX, 0),
    "TCP": struct.pack("=BB54x", socket.AF_INET, socket.IPPROTO_TCP),
    "UDP": struct.pack("=BB54x", socket.AF_INET, socket.IPPROTO_UDP),
    "packet": struct.pack("=BB18x", socket.AF_PACKET, 0),
    "netlink": struct.pack("=BB14x", socket.AF_NETLINK, 255),
}

V2_NAMES = {"blkio": "io", "cpuacct": "cpu", "devices": "", "freezer": ""}
"""Controllers with another name on v2; an empty name needs no controller there."""


def failure_in_child(act: Callable[[], None]) -> str | None:
    """Run ``act`` in a forked child; return its exception as text, or None.

    The caller must have one thread, as ``jaula check`` has.
    """

    def silent() -> str:
        act()
        return ""

    return run_in_child(silent) or None


def namespace(kind: str) -> Probe:
    """Return a probe that creates a namespace of a kind; needs root's privileges."""
    return lambda: failure_in_child(lambda: namespaces.unshare(namespaces.KINDS[kind]))


def _error_of(act: Callable[[], object]) -> str | None:
    try:
        act()
    except OSError as error:
        return error.strerror or str(error)
    return None


def overlay() -> str | None:
    """Probe overlayfs, including by loading its module."""
    return _error_of(lambda: os.close(mounts.fsopen("overlay")))


def idmapped() -> str | None:
    """Probe an id-mapped detached tmpfs with a new user namespace."""

    def act() -> None:
        namespaces_by_kind = namespaces.create_namespaces(
            CLONE.NEWUSER, [(0, 100000, 65536)], [(0, 100000, 65536)]
        )
        tree = mounts.new_filesystem("tmpfs")
        mounts.idmap(tree, namespaces_by_kind["user"])

    return failure_in_child(act)


def seccomp_filter() -> str | None:
    """Probe the actions of a container's filter."""
    for action in (seccomp.SECCOMP_RET_ERRNO, seccomp.SECCOMP_RET_KILL_PROCESS):
        if not seccomp.action_available(action):
            return f"action {action:#x} is not available"
    return None


def libseccomp() -> str | None:
    """Probe libseccomp, which resolves system call numbers."""
    return _error_of(seccomp.library)


def openat2() -> str | None:
    """Probe openat2(2), Linux 5.6."""
    return _error_of(lambda: os.close(openat2_call.openat2(mounts.AT_FDCWD, "/", os.O_PATH)))


def clone3() -> str | None:
    """Probe clone3(2) with a pidfd, Linux 5.3."""

    def act() -> None:
        pid, pidfd = namespaces.clone3(CLONE(0))
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(pidfd)

    return failure_in_child(act)


def pidfd() -> str | None:
    """Probe pidfd_open(2), Linux 5.3."""
    return _error_of(lambda: os.close(process_calls.pidfd_open(os.getpid())))


def close_range() -> str | None:
    """Probe close_range(2) with CLOEXEC, Linux 5.11."""
    return _error_of(lambda: process_calls.close_on_exec_from(1 << 20))


def mount_api() -> str | None:
    """Probe fsopen(2) and related calls, Linux 5.2, with a detached mount."""
    return _error_of(lambda: os.close(mounts.new_filesystem("tmpfs")))


def _makes_link(request: Callable[[], netlink.Request]) -> str | None:
    """Return the error of creating an interface in a temporary network namespace, or None."""

    def act() -> None:
        namespaces.unshare(CLONE.NEWNET)
        with netlink.Netlink() as link:
            link.send(request())

    return failure_in_child(act)


def veth() -> str | None:
    """Probe a veth pair."""
    return _makes_link(lambda: rtnetlink.add_veth("jprobe0", mtu=1500, peer_name="jprobe1"))


def bridge() -> str | None:
    """Probe a bridge."""
    return _makes_link(lambda: rtnetlink.add_bridge("jprobe0", mac="02:00:00:00:00:01", mtu=1500))


def nftables() -> str | None:
    """Probe a table with address translation in a temporary network namespace."""

    def act() -> None:
        from jaula.network.firewall import nft_command

        namespaces.unshare(CLONE.NEWNET)
        firewall = nft_command.open_nft()
        firewall.run(
            "add table inet jprobe; add chain inet jprobe out "
            "{ type nat hook postrouting priority srcnat; }; add rule inet jprobe out masquerade"
        )

    return failure_in_child(act)


def conntrack_zones() -> str | None:
    """Probe the rules of a bridge, which need conntrack zones, in a temporary network namespace."""

    def act() -> None:
        from ipaddress import IPv4Network

        from jaula.network.firewall import bridge_rules, nft_command

        namespaces.unshare(CLONE.NEWNET)
        nft_command.open_nft().run(bridge_rules.ruleset("jprobe0", IPv4Network("192.0.2.0/24"), ()))

    return failure_in_child(act)


def _on_parent(request: Callable[[int, int], netlink.Request]) -> str | None:
    """Return the error of creating a link on a parent in a temporary network namespace, or None.

    ``request`` is called with the index of the parent and the namespace.
    """

    def act() -> None:
        namespaces.unshare(CLONE.NEWNET)
        netns = namespaces.open_namespace("thread-self", "net")
        with rtnetlink.Rtnetlink() as rtnl:
            rtnl.send(rtnetlink.add_veth("jprobe0", mtu=1500, peer_name="jprobe1"))
            parent = rtnl.link("jprobe0")
            assert parent is not None
            rtnl.send(request(parent.index, netns))

    return failure_in_child(act)


def macvlan() -> str | None:
    """Probe a macvlan link."""
    return _on_parent(
        lambda parent, netns: rtnetlink.add_macvlan(
            "jprobe2", parent=parent, netns=netns, mode="bridge", mac=None
        )
    )


def ipvlan() -> str | None:
    """Probe an ipvlan link."""
    return _on_parent(
        lambda parent, netns: rtnetlink.add_ipvlan(
            "jprobe2", parent=parent, netns=netns, mode="l2", flag="bridge"
        )
    )


def vlan() -> str | None:
    """Probe a VLAN link."""
    return _on_parent(lambda parent, _: rtnetlink.add_vlan("jprobe0.9", parent=parent, tag=9))


def _trees() -> hierarchies.Hierarchies:
    return hierarchies.find(mountinfo.read(errors="replace"))


def controller(name: str) -> Probe:
    """Return a probe of a cgroup controller in any hierarchy of the host."""

    def act() -> str | None:
        mounted = _trees()
        if name in mounted.legacy:
            return None
        if mounted.unified is None:
            return "no cgroup hierarchy is mounted"
        v2_name = V2_NAMES.get(name, name)
        with open(f"{mounted.unified}/cgroup.controllers", encoding="ascii") as file:
            available = file.read().split()
        if not mounted.legacy and (not v2_name or v2_name in available):
            return None
        return None if v2_name and v2_name in available else "no hierarchy has it"

    return act


def _limit(name: str, legacy: str, unified: str, always: str) -> str | None:
    """Return an error if a limit file is missing: ``legacy`` on v1, ``unified`` on v2.

    The v2 root has no limits, so the first cgroup with ``always`` is read, a file that comes with
    the controller.
    """
    mounted = _trees()
    if (directory := mounted.legacy.get(name)) is not None:
        return None if os.path.exists(f"{directory}/{legacy}") else f"{legacy} does not exist"
    if mounted.unified is not None:
        for entry in os.scandir(mounted.unified):
            if entry.is_dir() and os.path.exists(f"{entry.path}/{always}"):
                exists = os.path.exists(f"{entry.path}/{unified}")
                return None if exists else f"{unified} does not exist"
    return f"no {name} controller"


def swap_accounting() -> str | None:
    """Probe limits of memory and swap together (v1), or of swap (v2)."""
    return _limit("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", "memory.max")


def cpu_quota() -> str | None:
    """Probe CFS bandwidth control."""
    return _limit("cpu", "cpu.cfs_quota_us", "cpu.max", "cpu.weight")


def selinux() -> str | None:
    """Probe SELinux with a policy."""
    return None if detect.selinux() else "not active"


def apparmor() -> str | None:
    """Probe AppArmor."""
    return None if detect.apparmor() else "not active"


def landlock() -> str | None:
    """Probe Landlock."""
    return None if detect.landlock() else "not active"


def user_namespaces_allowed() -> str | None:
    """Probe the sysctl that limits user namespaces."""
    with open("/proc/sys/user/max_user_namespaces", encoding="ascii") as file:
        limit = int(file.read())
    return None if limit > 0 else "user.max_user_namespaces is 0"


def pressure() -> str | None:
    """Probe pressure stall information."""
    return None if os.path.exists("/proc/pressure/memory") else "/proc/pressure does not exist"


def mqueue() -> str | None:
    """Probe POSIX message queues."""
    return _error_of(lambda: os.close(mounts.fsopen("mqueue")))


def criu() -> str | None:
    """Probe CRIU by a dump of a process with a socket."""
    report = _criu_report()
    return (report.problem or None) if report is not None else _NO_CHECKPOINTS


def dirty_tracking() -> str | None:
    """Probe whether the kernel tracks the pages that a process has written, as CRIU asks it."""
    report = _criu_report()
    if report is None:
        return _NO_CHECKPOINTS
    if not report.version:
        return report.problem
    return None if report.tracks_memory else "the kernel does not track written pages"


def socket_diagnostics() -> str | None:
    """Probe sock_diag(7) for each family that CRIU asks for."""
    missing = [name for name, request in _DIAGNOSTICS.items() if not _has_diagnostics(request)]
    return f"not for {', '.join(missing)}" if missing else None


def _has_diagnostics(request: bytes) -> bool:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(5)
        head = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _DUMP, 1, 0)
        sock.send(head + request)
        answer = sock.recv(1 << 16)
    _, kind, _, _, _, code = struct.unpack_from("=IHHIIi", answer)
    return not (kind in _STATUS and code == -errno.ENOENT)


@functools.cache
def _criu_report() -> CriuReport | None:
    """Return what CRIU can do here, None without the feature that uses it."""
    if feature.load("checkpoint") is None:
        return None
    from jaula.features.checkpoint.runtime.probe import CriuReport, probe  # imports protobuf

    return probe() if os.geteuid() == 0 else CriuReport(problem="only root can probe it")
