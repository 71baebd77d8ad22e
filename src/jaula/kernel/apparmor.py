"""What AppArmor says about profiles, as text (security/apparmor/apparmorfs.c, lib.c)."""

from __future__ import annotations


def parse_profiles(text: str) -> dict[str, str]:
    """Names and modes of /sys/kernel/security/apparmor/profiles: ``name (mode)`` a line."""
    found = {}
    for line in text.splitlines():
        name, space, mode = line.rpartition(" (")
        if space and mode.endswith(")"):
            found[name] = mode[:-1]
    return found


def parse_current(text: str) -> tuple[str, str]:
    """Profile and mode of /proc/PID/attr/apparmor/current; unconfined has no mode."""
    plain = text.rstrip("\0\n")
    name, space, mode = plain.rpartition(" (")
    return (name, mode[:-1]) if space and mode.endswith(")") else (plain, "")
