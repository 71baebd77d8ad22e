"""Which mandatory access control this host has.

Follows /sys/kernel/security/lsm and, where that is not mounted, lsm_list_modules(2).
"""

from __future__ import annotations

import os

from jaula.kernel import apparmor as apparmor_names
from jaula.kernel import landlock as kernel_landlock
from jaula.kernel import lsm as kernel


def active() -> tuple[str, ...]:
    """Names of the security modules in force, in the kernel's order; empty where none is told."""
    try:
        with open("/sys/kernel/security/lsm", encoding="ascii") as file:
            return tuple(name for name in file.read().strip().split(",") if name)
    except OSError:
        pass  # securityfs is not mounted
    try:
        return kernel.list_modules()
    except OSError:  # before Linux 6.8
        return ()


def selinux() -> bool:
    """Whether SELinux has a policy loaded, so that labels mean something."""
    return os.path.exists("/sys/fs/selinux/enforce")


def selinux_enforcing() -> bool:
    """Whether SELinux refuses, and does not only log."""
    return _read("/sys/fs/selinux/enforce") == "1"


def apparmor() -> bool:
    """Whether AppArmor is in force."""
    return _read("/sys/module/apparmor/parameters/enabled") == "Y"


def apparmor_profiles() -> dict[str, str] | None:
    """The loaded profiles with their modes; None where the kernel does not show them to us."""
    try:
        with open("/sys/kernel/security/apparmor/profiles", encoding="utf-8") as file:
            return apparmor_names.parse_profiles(file.read())
    except OSError:
        return None


def apparmor_current() -> str:
    """Our own profile; empty where there is no AppArmor."""
    return apparmor_names.parse_current(_read("/proc/self/attr/apparmor/current"))[0]


def landlock() -> int:
    """The version of Landlock's interface, 0 where there is none."""
    try:
        return kernel_landlock.abi_version()
    except OSError:
        return 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
