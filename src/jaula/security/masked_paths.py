"""Paths below /proc and /sys that a container does not see, or sees read-only.

Docker's lists (moby ``oci/defaults.go``), with more where a file tells of the whole host. The
runtime puts an empty file or directory of the engine's over the first kind and a read-only bind
mount over the second; a path that the kernel does not have is passed over.
"""

from __future__ import annotations

MASKS: tuple[tuple[str, str], ...] = (
    ("/proc/acpi", "the host's hardware; its bus could be written (CVE-2018-10892)"),
    ("/proc/asound", "who uses sound, and when"),
    ("/proc/interrupts", "counts of interrupts show keystrokes and what neighbours do"),
    ("/proc/kcore", "all memory"),
    ("/proc/keys", "names of keys, which are not namespaced"),
    ("/proc/key-users", "how many keys each user of the host has"),
    ("/proc/kpagecgroup", "which cgroup has a page of memory"),
    ("/proc/kpagecount", "physical pages, for rowhammer and side channels"),
    ("/proc/kpageflags", "physical pages, for rowhammer and side channels"),
    ("/proc/latency_stats", "what all processes wait for"),
    ("/proc/sched_debug", "all processes of the host with their cgroups"),
    ("/proc/scsi", "the host's disks; they could be removed by a write (CVE-2017-16539)"),
    ("/proc/timer_list", "all timers, with kernel addresses"),
    ("/proc/timer_stats", "all timers, with processes of the host"),
    ("/proc/vmallocinfo", "kernel addresses"),
    ("/sys/devices/virtual/powercap", "power meters reveal secrets of neighbours (CVE-2020-8694)"),
    ("/sys/firmware", "firmware tables and variables"),
)
"""(path, what it would tell)."""

READONLY: tuple[tuple[str, str], ...] = (
    ("/proc/bus", "devices on the host's buses"),
    ("/proc/fs", "settings of file systems"),
    ("/proc/irq", "which CPU serves which interrupt"),
    ("/proc/mtrr", "memory types of the machine"),
    ("/proc/sys", "settings of the kernel; namespaced ones come by --sysctl"),
    ("/proc/sysrq-trigger", "restarts the machine"),
)
"""(path, what it would change)."""

MASKED_PATHS: tuple[str, ...] = tuple(path for path, _ in MASKS)
READONLY_PATHS: tuple[str, ...] = tuple(path for path, _ in READONLY)
