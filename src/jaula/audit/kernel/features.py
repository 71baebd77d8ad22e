"""What a container engine wants of a kernel, and what is lost where it is missing."""

from __future__ import annotations

import msgspec

from jaula.audit.kernel import probes
from jaula.audit.kernel.probes import Probe


class Feature(msgspec.Struct, frozen=True):
    """One line of the report.

    ``options`` are the kernel's CONFIG_ names without the prefix; without what is ``needed``
    nothing runs.
    """

    group: str
    name: str
    options: tuple[str, ...]
    probe: Probe | None
    consequence: str
    needed: bool = False


def _f(
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
    _f(_NS, "mnt", "NAMESPACES", probes.namespace("mnt"), "containers", needed=True),
    _f(_NS, "pid", "PID_NS", probes.namespace("pid"), "containers", needed=True),
    _f(_NS, "net", "NET_NS", probes.namespace("net"), "containers", needed=True),
    _f(_NS, "ipc", "IPC_NS", probes.namespace("ipc"), "containers", needed=True),
    _f(_NS, "uts", "UTS_NS", probes.namespace("uts"), "containers", needed=True),
    _f(_NS, "cgroup", "CGROUPS", probes.namespace("cgroup"), "containers see the host's cgroups"),
    _f(_NS, "user", "USER_NS", probes.namespace("user"),
       "root in a container is root of the host: only --userns=host works"),
    _f(_NS, "user.max_user_namespaces", "", probes.user_namespaces_allowed,
       "only --userns=host works"),
    _f(_NS, "time", "TIME_NS", probes.namespace("time"), "clocks of checkpointed containers"),
    _f(_CG, "cpu", "CGROUP_SCHED", probes.controller("cpu"), "--cpu-shares, --cpus"),
    _f(_CG, "cpu quota", "CFS_BANDWIDTH", probes.cpu_quota, "--cpus"),
    _f(_CG, "cpuset", "CPUSETS", probes.controller("cpuset"), "--cpuset-cpus"),
    _f(_CG, "memory", "MEMCG", probes.controller("memory"), "-m: one container can take it all"),
    _f(_CG, "swap accounting", "SWAP", probes.swap_accounting, "--memory-swap"),
    _f(_CG, "pids", "CGROUP_PIDS", probes.controller("pids"),
       "--pids-limit: a fork bomb reaches the host"),
    _f(_CG, "devices", "CGROUP_DEVICE", probes.controller("devices"),
       "the allow-list of devices"),
    _f(_CG, "freezer", "CGROUP_FREEZER", probes.controller("freezer"), "pause"),
    _f(_CG, "blkio", "BLK_CGROUP", probes.controller("blkio"), "disk figures in stats"),
    _f(_CG, "device filter (v2)", "CGROUP_BPF", None, "the allow-list of devices on cgroup v2"),
    _f(_CG, "pressure", "PSI", probes.pressure, "figures of pressure"),
    _f(_FS, "overlay", "OVERLAY_FS", probes.overlay,
       "shared layers: the vfs driver copies every image"),
    _f(_FS, "id-mapped mounts", "", probes.idmapped,
       "files of volumes and binds keep their owner (Linux 5.12)"),
    _f(_FS, "tmpfs", "TMPFS", probes.mount_api, "--tmpfs, /dev, /dev/shm", needed=True),
    _f(_FS, "mqueue", "POSIX_MQUEUE", probes.mqueue, "/dev/mqueue"),
    _f(_API, "clone3 and pidfd", "", probes.clone3, "starting containers (Linux 5.3)",
       needed=True),
    _f(_API, "pidfd_open", "", probes.pidfd, "signals to exactly one process (Linux 5.3)",
       needed=True),
    _f(_API, "openat2", "", probes.openat2, "safe look-ups in a container's files (Linux 5.6)",
       needed=True),
    _f(_API, "close_range", "", probes.close_range,
       "no descriptor leaks into a container (Linux 5.11)", needed=True),
    _f(_SEC, "seccomp", "SECCOMP SECCOMP_FILTER", probes.seccomp_filter,
       "the filter of system calls: only seccomp=unconfined works"),
    _f(_SEC, "libseccomp.so.2", "", probes.libseccomp,
       "building filters: only seccomp=unconfined works"),
    _f(_SEC, "SELinux", "SECURITY_SELINUX", probes.selinux, "--security-opt label="),
    _f(_SEC, "AppArmor", "SECURITY_APPARMOR", probes.apparmor, "--security-opt apparmor="),
    _f(_SEC, "Landlock", "SECURITY_LANDLOCK", probes.landlock,
       "programs cannot restrict themselves"),
    _f(_NET, "veth", "VETH", probes.veth, "bridge networks: only none and host work"),
    _f(_NET, "bridge", "BRIDGE", probes.bridge, "bridge networks: only none and host work"),
    _f(_NET, "nftables", "NF_TABLES NFT_NAT NFT_MASQ", probes.nftables,
       "published ports and the way out of bridge networks"),
    _f(_NET, "handing over", "NFT_DUP_IPV4 NF_CONNTRACK_ZONES NFT_FIB_IPV4", probes.conntrack_zones,
       "published ports that obey the host's firewall: only the host reaches them"),
    _f(_NET, "macvlan", "MACVLAN", probes.macvlan, "networks of the driver macvlan"),
    _f(_NET, "ipvlan", "IPVLAN", probes.ipvlan, "networks of the driver ipvlan"),
    _f(_NET, "vlan", "VLAN_8021Q", probes.vlan, "making parents such as eth0.10 for networks"),
    _f(_NET, "bridge filter", "NF_TABLES_BRIDGE", None, "guarding addresses on the bridge"),
    _f(_NET, "connection tracking", "NF_CONNTRACK", None, "address translation"),
)  # fmt: skip
"""In the order of the report."""
