"""Masked and read-only paths below /proc and /sys.

They are Docker's lists (moby ``oci/defaults.go``), extended by files that expose the whole host.
The runtime mounts an empty file or directory over a masked path, and a read-only bind mount over a
read-only path. A path that the kernel does not have is skipped.
"""

from __future__ import annotations

MASKS: tuple[tuple[str, str], ...] = (
    ("/proc/acpi", "the host's hardware; its bus could be written (CVE-2018-10892)"),
    ("/proc/asound", "the users of sound devices"),
    ("/proc/interrupts", "interrupt counts reveal keystrokes and activity of other containers"),
    ("/proc/kcore", "all memory"),
    ("/proc/keys", "names of keys, which are not namespaced"),
    ("/proc/key-users", "the number of keys of each user of the host"),
    ("/proc/kpagecgroup", "the cgroup of each page of memory"),
    ("/proc/kpagecount", "physical pages, for rowhammer and side channels"),
    ("/proc/kpageflags", "physical pages, for rowhammer and side channels"),
    ("/proc/latency_stats", "the wait reasons of all processes"),
    ("/proc/sched_debug", "all processes of the host with their cgroups"),
    ("/proc/scsi", "the host's disks; they could be removed by a write (CVE-2017-16539)"),
    ("/proc/timer_list", "all timers, with kernel addresses"),
    ("/proc/timer_stats", "all timers, with processes of the host"),
    ("/proc/vmallocinfo", "kernel addresses"),
    (
        "/sys/devices/virtual/powercap",
        "power meters reveal secrets of other containers (CVE-2020-8694)",
    ),
    ("/sys/firmware", "firmware tables and variables"),
)
"""Masked paths as (path, what it would expose)."""

READONLY: tuple[tuple[str, str], ...] = (
    ("/proc/bus", "devices on the host's buses"),
    ("/proc/fs", "settings of file systems"),
    ("/proc/irq", "the CPU affinity of interrupts"),
    ("/proc/mtrr", "memory types of the machine"),
    ("/proc/sys", "settings of the kernel; --sysctl sets namespaced ones"),
    ("/proc/sysrq-trigger", "restarts the machine"),
)
"""Read-only paths as (path, what a write would change)."""

MASKED_PATHS: tuple[str, ...] = tuple(path for path, _ in MASKS)
READONLY_PATHS: tuple[str, ...] = tuple(path for path, _ in READONLY)
