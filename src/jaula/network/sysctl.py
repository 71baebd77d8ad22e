"""Settings under /proc/sys/net: those of the calling thread's network namespace."""

from __future__ import annotations

import os

ROOT = "/proc/sys/net"


def read_sysctl(name: str) -> str:
    """The value of ``ipv4/ip_forward`` and the like, without its line end."""
    with open(f"{ROOT}/{name}", encoding="ascii") as file:
        return file.read().strip()


def write_sysctl(name: str, value: str) -> None:
    """Set a value; OSError if the kernel refuses it or has no such setting."""
    fd = os.open(f"{ROOT}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def has_ipv6() -> bool:
    """Whether this kernel has IPv6 at all."""
    return os.path.isdir(f"{ROOT}/ipv6")


def ipv6_interfaces() -> list[str]:
    """The interfaces of the namespace that have settings of IPv6."""
    return [name for name in os.listdir(f"{ROOT}/ipv6/conf") if name not in ("all", "default")]
