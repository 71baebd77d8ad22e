"""The processors of this host: ``/proc/cpuinfo`` (proc_cpuinfo(5))."""

from __future__ import annotations

_NOT_FEATURES = frozenset(  # flags of /proc/cpuinfo that no program can use
    ("arch_perfmon", "nopl", "rep_good", "tsc_known_freq", "hypervisor", "cpuid", "constant_tsc")
)


def cpu_features() -> tuple[str, ...]:
    """Return the features that all processors have and programs can use, sorted."""
    found: set[str] | None = None
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                found = set(value.split()) if found is None else found & set(value.split())
    return tuple(sorted((found or set()) - _NOT_FEATURES))
