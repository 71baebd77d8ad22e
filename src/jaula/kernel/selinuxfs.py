"""What a loaded SELinux policy answers, through /sys/fs/selinux.

Follows security/selinux/selinuxfs.c: a question is written to a file, and the answer read from the
same open file.
"""

from __future__ import annotations

import errno
import os

ROOT = "/sys/fs/selinux"


def _ask(name: str, question: str) -> str:
    fd = os.open(f"{ROOT}/{name}", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(fd, question.encode() + b"\0")
        return os.read(fd, 4096).decode(errors="replace").rstrip("\0")
    finally:
        os.close(fd)


def canonical(context: str) -> str:
    """The context as the kernel writes it. Raises ``OSError``, EINVAL for one that is none."""
    return _ask("context", context)


def check_context(context: str) -> bool:
    """Whether the policy knows user, role, type and level, and lets them go together."""
    try:
        _ask("context", context)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def allowed(source: str, target: str, kind: str, permission: str) -> bool:
    """Whether ``source`` has a permission of class ``kind`` on ``target``.

    Raises ``OSError``, ENOENT for a class or permission that the policy does not have.
    """
    number = int(_read(f"class/{kind}/index"))
    bit = int(_read(f"class/{kind}/perms/{permission}"))
    answer = _ask("access", f"{source} {target} {number}").split()
    return bool(int(answer[0], 16) >> (bit - 1) & 1)


def _read(name: str) -> str:
    with open(f"{ROOT}/{name}", encoding="ascii") as file:
        return file.read().strip("\0\n ")
