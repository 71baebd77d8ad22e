"""Queries to the loaded SELinux policy through /sys/fs/selinux.

Source: security/selinux/selinuxfs.c. A query is written to a file, and the answer is read from the
same open file.
"""

from __future__ import annotations

import errno
import os

ROOT = "/sys/fs/selinux"


def _ask(name: str, query: str) -> str:
    """Write a query to a selinuxfs file and return the answer."""
    fd = os.open(f"{ROOT}/{name}", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(fd, query.encode() + b"\0")
        return os.read(fd, 4096).decode(errors="replace").rstrip("\0")
    finally:
        os.close(fd)


def own_label() -> str:
    """Return the label of the calling process; '' without SELinux."""
    if not os.path.exists(f"{ROOT}/enforce"):
        return ""
    with open("/proc/self/attr/current", encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\0\n")


def canonical(context: str) -> str:
    """Return the context in the kernel's form.

    :raises OSError: EINVAL when the policy does not accept the context.
    """
    return _ask("context", context)


def check_context(context: str) -> bool:
    """Return whether the policy accepts this combination of user, role, type and level."""
    try:
        _ask("context", context)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def allowed(source: str, target: str, kind: str, permission: str) -> bool:
    """Return whether ``source`` has a permission of class ``kind`` on ``target``.

    :raises OSError: ENOENT when the policy does not have the class or permission.
    """
    number = int(_read(f"class/{kind}/index"))
    bit = int(_read(f"class/{kind}/perms/{permission}"))
    answer = _ask("access", f"{source} {target} {number}").split()
    return bool(int(answer[0], 16) >> (bit - 1) & 1)


def _read(name: str) -> str:
    with open(f"{ROOT}/{name}", encoding="ascii") as file:
        return file.read().strip("\0\n ")
