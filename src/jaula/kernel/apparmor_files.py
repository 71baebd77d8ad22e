"""AppArmor's text formats (security/apparmor/apparmorfs.c, lib.c)."""

from __future__ import annotations


def parse_profiles(text: str) -> dict[str, str]:
    """Return name and mode of each profile in /sys/kernel/security/apparmor/profiles.

    A line has the form ``name (mode)``.
    """
    profiles = {}
    for line in text.splitlines():
        name, space, mode = line.rpartition(" (")
        if space and mode.endswith(")"):
            profiles[name] = mode[:-1]
    return profiles


def parse_current(text: str) -> tuple[str, str]:
    """Return profile and mode in /proc/PID/attr/apparmor/current; unconfined has no mode."""
    plain = text.rstrip("\0\n")
    name, space, mode = plain.rpartition(" (")
    return (name, mode[:-1]) if space and mode.endswith(")") else (plain, "")
