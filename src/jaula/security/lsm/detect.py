"""Detect the Linux security modules of this host.

Reads /sys/kernel/security/lsm, or calls lsm_list_modules(2) if securityfs is not mounted.
"""

from __future__ import annotations

import os

from jaula.kernel import apparmor_files, lsm_modules
from jaula.kernel import landlock as kernel_landlock


def active() -> tuple[str, ...]:
    """Return the names of the active security modules in the kernel's order, () if unknown."""
    try:
        with open("/sys/kernel/security/lsm", encoding="ascii") as file:
            return tuple(name for name in file.read().strip().split(",") if name)
    except OSError:
        pass  # securityfs is not mounted
    try:
        return lsm_modules.list_modules()
    except OSError:  # before Linux 6.8
        return ()


def selinux() -> bool:
    """Return whether SELinux has a loaded policy."""
    return os.path.exists("/sys/fs/selinux/enforce")


def selinux_enforcing() -> bool:
    """Return whether SELinux is in enforcing mode, not only logging."""
    return _read("/sys/fs/selinux/enforce") == "1"


def apparmor() -> bool:
    """Return whether AppArmor is enabled."""
    return _read("/sys/module/apparmor/parameters/enabled") == "Y"


def apparmor_profiles() -> dict[str, str] | None:
    """Return the loaded profiles with their modes, None if the kernel does not list them."""
    try:
        with open("/sys/kernel/security/apparmor/profiles", encoding="utf-8") as file:
            return apparmor_files.parse_profiles(file.read())
    except OSError:
        return None


def apparmor_current() -> str:
    """Return the profile of this process, ``unconfined`` without AppArmor."""
    text = _read("/proc/self/attr/apparmor/current")
    return apparmor_files.parse_current(text)[0] or "unconfined"


def landlock() -> int:
    """Return the version of Landlock's interface, 0 without Landlock."""
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
