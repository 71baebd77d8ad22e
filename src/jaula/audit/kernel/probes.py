"""Trying what the kernel can do, without leaving anything behind.

Each probe gives None where the thing works, and otherwise says what the kernel answered. What makes
namespaces or devices is tried in a child process of its own, in namespaces that end with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from jaula.cgroups import hierarchies
from jaula.kernel import mounts, namespaces, netlink, paths, process, rtnetlink, seccomp
from jaula.kernel.namespaces import CLONE
from jaula.security.lsm import detect

Probe = Callable[[], str | None]

V2_NAMES = {"blkio": "io", "cpuacct": "cpu", "devices": "", "freezer": ""}
"""Controllers that have another name on v2; with none they need no controller there."""


def failure_in_child(act: Callable[[], None]) -> str | None:
    """Run ``act`` in a forked child; what it raises comes back as text.

    The caller must have one thread, as ``jaula check`` does.
    """

    def silent() -> str:
        act()
        return ""

    return run_in_child(silent) or None


def run_in_child(act: Callable[[], str]) -> str:
    """What ``act`` says in a forked child, or what it raises, as text of at most 64 KB."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = b""
        try:
            said = act().encode("utf-8", "surrogateescape")[: 1 << 16]
        except BaseException as error:  # noqa: BLE001 - told to the parent, which decides
            said = f"{error}".encode()[:2000] or type(error).__name__.encode()
        while said:
            said = said[os.write(writing, said) :]
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        said = answers.read()
    _, status = os.waitpid(pid, 0)
    if status:
        return f"the probe ended with wait status {status}"
    return said.decode("utf-8", "replace")


def namespace(kind: str) -> Probe:
    """A new namespace of a kind; needs what root has."""
    return lambda: failure_in_child(lambda: namespaces.unshare(namespaces.KINDS[kind]))


def _said(act: Callable[[], object]) -> str | None:
    try:
        act()
    except OSError as error:
        return error.strerror or str(error)
    return None


def overlay() -> str | None:
    """The file system is known to the kernel (or its module can be loaded)."""
    return _said(lambda: os.close(mounts.fsopen("overlay")))


def idmapped() -> str | None:
    """A tmpfs that is in no mount namespace, with the map of a new user namespace."""

    def act() -> None:
        made = namespaces.create_namespaces(
            CLONE.NEWUSER, [(0, 100000, 65536)], [(0, 100000, 65536)]
        )
        tree = mounts.new_filesystem("tmpfs")
        mounts.idmap(tree, made["user"])

    return failure_in_child(act)


def seccomp_filter() -> str | None:
    """Filters with the actions that a container's has."""
    for action in (seccomp.SECCOMP_RET_ERRNO, seccomp.SECCOMP_RET_KILL_PROCESS):
        if not seccomp.action_available(action):
            return f"action {action:#x} is not available"
    return None


def libseccomp() -> str | None:
    """The library that knows the numbers of system calls."""
    return _said(seccomp.library)


def openat2() -> str | None:
    """openat2(2), Linux 5.6."""
    return _said(lambda: os.close(paths.openat2(mounts.AT_FDCWD, "/", os.O_PATH)))


def clone3() -> str | None:
    """clone3(2) with a pidfd, Linux 5.3."""

    def act() -> None:
        pid, pidfd = namespaces.clone3(CLONE(0))
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(pidfd)

    return failure_in_child(act)


def pidfd() -> str | None:
    """pidfd_open(2), Linux 5.3."""
    return _said(lambda: os.close(process.pidfd_open(os.getpid())))


def close_range() -> str | None:
    """close_range(2) with CLOEXEC, Linux 5.11."""
    return _said(lambda: process.close_on_exec_from(1 << 20))


def mount_api() -> str | None:
    """fsopen(2) and its kin, Linux 5.2, with a mount that is attached nowhere."""
    return _said(lambda: os.close(mounts.new_filesystem("tmpfs")))


def _makes_link(request: Callable[[], netlink.Request]) -> str | None:
    """Whether the kernel makes an interface, in a network namespace that ends at once."""

    def act() -> None:
        namespaces.unshare(CLONE.NEWNET)
        with netlink.Netlink() as link:
            link.send(request())

    return failure_in_child(act)


def veth() -> str | None:
    """A pair of virtual interfaces."""
    return _makes_link(lambda: rtnetlink.add_veth("jprobe0", mtu=1500, peer_name="jprobe1"))


def bridge() -> str | None:
    """A bridge."""
    return _makes_link(lambda: rtnetlink.add_bridge("jprobe0", mac="02:00:00:00:00:01", mtu=1500))


def nftables() -> str | None:
    """A table with address translation, in a network namespace that ends at once."""

    def act() -> None:
        from jaula.network.firewall import nftables as nft

        namespaces.unshare(CLONE.NEWNET)
        firewall = nft.open_nft()
        firewall.run(
            "add table inet jprobe; add chain inet jprobe out "
            "{ type nat hook postrouting priority srcnat; }; add rule inet jprobe out masquerade"
        )

    return failure_in_child(act)


def conntrack_zones() -> str | None:
    """The rules of a bridge, in a network namespace that ends at once."""

    def act() -> None:
        from ipaddress import IPv4Network

        from jaula.network.firewall import bridge_rules
        from jaula.network.firewall import nftables as nft

        namespaces.unshare(CLONE.NEWNET)
        nft.open_nft().run(bridge_rules.ruleset("jprobe0", IPv4Network("192.0.2.0/24"), ()))

    return failure_in_child(act)


def _on_parent(request: Callable[[int, int], netlink.Request]) -> str | None:
    """Whether the kernel makes a link on another, in a network namespace that ends at once.

    ``request`` is given the index of the parent and the namespace.
    """

    def act() -> None:
        namespaces.unshare(CLONE.NEWNET)
        netns = namespaces.open_namespace("thread-self", "net")
        with rtnetlink.Rtnetlink() as sockets:
            sockets.send(rtnetlink.add_veth("jprobe0", mtu=1500, peer_name="jprobe1"))
            parent = sockets.link("jprobe0")
            assert parent is not None
            sockets.send(request(parent.index, netns))

    return failure_in_child(act)


def macvlan() -> str | None:
    """A link with a MAC of its own on another."""
    return _on_parent(
        lambda parent, netns: rtnetlink.add_macvlan(
            "jprobe2", parent=parent, netns=netns, mode="bridge", mac=None
        )
    )


def ipvlan() -> str | None:
    """A link with the MAC of another."""
    return _on_parent(
        lambda parent, netns: rtnetlink.add_ipvlan(
            "jprobe2", parent=parent, netns=netns, mode="l2", flag="bridge"
        )
    )


def vlan() -> str | None:
    """A link for tagged frames."""
    return _on_parent(lambda parent, _: rtnetlink.add_vlan("jprobe0.9", parent=parent, tag=9))


def _trees() -> hierarchies.Hierarchies:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        return hierarchies.parse(file.read())


def controller(name: str) -> Probe:
    """A cgroup controller on whichever tree the host has it."""

    def act() -> str | None:
        trees = _trees()
        if name in trees.legacy:
            return None
        if trees.unified is None:
            return "no cgroup tree is mounted"
        second = V2_NAMES.get(name, name)
        with open(f"{trees.unified}/cgroup.controllers", encoding="ascii") as file:
            there = file.read().split()
        if not trees.legacy and (not second or second in there):
            return None
        return None if second and second in there else "no tree has it"

    return act


def _limit(name: str, legacy: str, unified: str, always: str) -> str | None:
    """Whether a controller has a limit's file: ``legacy`` on v1, ``unified`` on v2.

    The root of v2 has no limits: the first cgroup that has ``always``, a file that comes with the
    controller, is looked at.
    """
    trees = _trees()
    if (directory := trees.legacy.get(name)) is not None:
        return None if os.path.exists(f"{directory}/{legacy}") else f"{legacy} does not exist"
    if trees.unified is not None:
        for entry in os.scandir(trees.unified):
            if entry.is_dir() and os.path.exists(f"{entry.path}/{always}"):
                exists = os.path.exists(f"{entry.path}/{unified}")
                return None if exists else f"{unified} does not exist"
    return f"no {name} controller to look at"


def swap_accounting() -> str | None:
    """Limits of memory and swap together (v1), or of swap (v2)."""
    return _limit("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", "memory.max")


def cpu_quota() -> str | None:
    """CFS bandwidth control."""
    return _limit("cpu", "cpu.cfs_quota_us", "cpu.max", "cpu.weight")


def selinux() -> str | None:
    """SELinux with a policy."""
    return None if detect.selinux() else "not in force"


def apparmor() -> str | None:
    """AppArmor."""
    return None if detect.apparmor() else "not in force"


def landlock() -> str | None:
    """Landlock."""
    return None if detect.landlock() else "not in force"


def user_namespaces_allowed() -> str | None:
    """The sysctl that bounds them."""
    with open("/proc/sys/user/max_user_namespaces", encoding="ascii") as file:
        limit = int(file.read())
    return None if limit > 0 else "user.max_user_namespaces is 0"


def pressure() -> str | None:
    """Pressure stall information."""
    return None if os.path.exists("/proc/pressure/memory") else "/proc/pressure does not exist"


def mqueue() -> str | None:
    """POSIX message queues."""
    return _said(lambda: os.close(mounts.fsopen("mqueue")))
