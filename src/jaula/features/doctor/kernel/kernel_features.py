"""Kernel features that a container engine uses, and the consequence if one is missing."""

from __future__ import annotations

import msgspec

from jaula.features.doctor.kernel import probes
from jaula.features.doctor.kernel.probes import Probe


class Feature(msgspec.Struct, frozen=True):
    """One row of the report.

    ``options`` are CONFIG_ names without the prefix. Without a ``needed`` feature no container can
    run.
    """

    group: str
    name: str
    options: tuple[str, ...]
    probe: Probe | None
    consequence: str
    needed: bool = False


def _feature(
    group: str,
    name: str,
    options: str,
    probe: Probe | None,
    consequence: str,
    *,
    needed: bool = False,
) -> Feature:
    return Feature(group, name, tuple(options.split()), probe, consequence, needed)


_NS, _CG, _FS, _SEC = "namespaces", "cgroups", "storage", "confinement"
_NET, _API = "network", "system calls"

FEATURES: tuple[Feature, ...] = (
    _feature(_NS, "mnt", "NAMESPACES", probes.namespace("mnt"), "containers", needed=True),
    _feature(_NS, "pid", "PID_NS", probes.namespace("pid"), "containers", needed=True),
    _feature(_NS, "net", "NET_NS", probes.namespace("net"), "containers", needed=True),
    _feature(_NS, "ipc", "IPC_NS", probes.namespace("ipc"), "containers", needed=True),
    _feature(_NS, "uts", "UTS_NS", probes.namespace("uts"), "containers", needed=True),
    _feature(_NS, "cgroup", "CGROUPS", probes.namespace("cgroup"),
             "containers see the host's cgroups"),
    _feature(_NS, "user", "USER_NS", probes.namespace("user"),
             "root in a container is root of the host: only --userns=host works"),
    _feature(_NS, "user.max_user_namespaces", "", probes.user_namespaces_allowed,
             "only --userns=host works"),
    _feature(_NS, "time", "TIME_NS", probes.namespace("time"), "clocks of checkpointed containers"),
    _feature(_CG, "cpu", "CGROUP_SCHED", probes.controller("cpu"), "--cpu-shares, --cpus"),
    _feature(_CG, "cpu quota", "CFS_BANDWIDTH", probes.cpu_quota, "--cpus"),
    _feature(_CG, "cpuset", "CPUSETS", probes.controller("cpuset"), "--cpuset-cpus"),
    _feature(_CG, "memory", "MEMCG", probes.controller("memory"),
             "-m: one container can use all memory"),
    _feature(_CG, "swap accounting", "SWAP", probes.swap_accounting, "--memory-swap"),
    _feature(_CG, "pids", "CGROUP_PIDS", probes.controller("pids"),
             "--pids-limit: a fork bomb reaches the host"),
    _feature(_CG, "devices", "CGROUP_DEVICE", probes.controller("devices"),
             "the allow-list of devices"),
    _feature(_CG, "freezer", "CGROUP_FREEZER", probes.controller("freezer"), "pause"),
    _feature(_CG, "blkio", "BLK_CGROUP", probes.controller("blkio"), "block I/O in stats"),
    _feature(_CG, "device filter (v2)", "CGROUP_BPF", None,
             "the allow-list of devices on cgroup v2"),
    _feature(_CG, "pressure", "PSI", probes.pressure, "pressure in stats"),
    _feature(_FS, "overlay", "OVERLAY_FS", probes.overlay,
             "shared layers: the vfs driver copies every image"),
    _feature(_FS, "id-mapped mounts", "", probes.idmapped,
             "files of volumes and binds keep their owner (Linux 5.12)"),
    _feature(_FS, "tmpfs", "TMPFS", probes.mount_api, "--tmpfs, /dev, /dev/shm", needed=True),
    _feature(_FS, "mqueue", "POSIX_MQUEUE", probes.mqueue, "/dev/mqueue"),
    _feature(_API, "clone3 and pidfd", "", probes.clone3, "starting containers (Linux 5.3)",
             needed=True),
    _feature(_API, "pidfd_open", "", probes.pidfd, "signals to exactly one process (Linux 5.3)",
             needed=True),
    _feature(_API, "openat2", "", probes.openat2, "safe path resolution in a container (Linux 5.6)",
             needed=True),
    _feature(_API, "close_range", "", probes.close_range,
             "no descriptor leaks into a container (Linux 5.11)", needed=True),
    _feature(_API, "socket diagnostics",
             "UNIX_DIAG INET_DIAG INET_UDP_DIAG PACKET_DIAG NETLINK_DIAG",
             probes.socket_diagnostics, "checkpoints of programs with sockets"),
    _feature(_API, "checkpoints (CRIU)", "CHECKPOINT_RESTORE", probes.criu,
             "jaula checkpoint, start --checkpoint (CRIU 4.2, optional)"),
    _feature(_API, "dirty page tracking", "MEM_SOFT_DIRTY", probes.dirty_tracking,
             "shorter pauses for checkpoints of large containers"),
    _feature(_SEC, "seccomp", "SECCOMP SECCOMP_FILTER", probes.seccomp_filter,
             "the system call filter: only seccomp=unconfined works"),
    _feature(_SEC, "libseccomp.so.2", "", probes.libseccomp,
             "compiling filters: only seccomp=unconfined works"),
    _feature(_SEC, "SELinux", "SECURITY_SELINUX", probes.selinux, "--security-opt label="),
    _feature(_SEC, "AppArmor", "SECURITY_APPARMOR", probes.apparmor, "--security-opt apparmor="),
    _feature(_SEC, "Landlock", "SECURITY_LANDLOCK", probes.landlock,
             "programs cannot restrict themselves"),
    _feature(_NET, "veth", "VETH", probes.veth, "bridge networks: only none and host work"),
    _feature(_NET, "bridge", "BRIDGE", probes.bridge, "bridge networks: only none and host work"),
    _feature(_NET, "nftables", "NF_TABLES NFT_NAT NFT_MASQ", probes.nftables,
             "published ports and outgoing traffic of bridge networks"),
    _feature(_NET, "firewalled port forwarding",
             "NFT_DUP_IPV4 NF_CONNTRACK_ZONES NFT_FIB_IPV4", probes.conntrack_zones,
             "published ports that obey the host's firewall: only the host reaches them"),
    _feature(_NET, "macvlan", "MACVLAN", probes.macvlan, "networks of the driver macvlan"),
    _feature(_NET, "ipvlan", "IPVLAN", probes.ipvlan, "networks of the driver ipvlan"),
    _feature(_NET, "vlan", "VLAN_8021Q", probes.vlan,
             "creating parents such as eth0.10 for networks"),
    _feature(_NET, "bridge filter", "NF_TABLES_BRIDGE", None, "anti-spoofing on the bridge"),
    _feature(_NET, "connection tracking", "NF_CONNTRACK", None, "address translation"),
)  # fmt: skip
"""All features, in the order of the report."""
