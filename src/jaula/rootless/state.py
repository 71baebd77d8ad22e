"""What an engine in its user namespace knows of its keeper, from files in its run directory.

Loaded by the engine before it forks its zygote, so imports are few.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from jaula.kernel import mounts

HOLDER_DIR = "keeper"  # in the engine's run directory
KEEPALIVE_FIFO, CONTROL_SOCKET = "alive", "control"  # in the keeper's: a fifo, a socket
NETWORK_FILE = "network"  # the helper's name, or why there is none
CGROUP_FILE = "cgroup"  # why there is no cgroup for containers; empty where there is
KEEPALIVE_ENV = "JAULA_KEEPER_FD"
RESOLV_CONF = "/etc/resolv.conf"
RESOLVER = "10.0.2.3"
"""Where the helpers answer in place of a name server on the host's loopback."""


class NetworkHelper(NamedTuple):
    """What joins the engine's network to outside, or "" and why there is nothing."""

    name: str
    reason: str = ""


def protect_keepalive() -> None:
    """After the engine was executed anew: what keeps the keeper is not for other programs."""
    number = os.environ.pop(KEEPALIVE_ENV, "")
    if number.isdigit():
        os.set_inheritable(int(number), False)


def open_keepalive(run: str) -> int:
    """The keeper lives as long as this descriptor is open, here or in a process forked later."""
    return open_fifo(f"{run}/{HOLDER_DIR}")


def open_fifo(directory: str) -> int:
    """The same by the keeper's directory. Raises ``OSError`` (ENXIO) where it has ended."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(f"{directory}/{KEEPALIVE_FIFO}", flags)


def network_helper(run: str) -> NetworkHelper:
    """What joins the engine's network to outside."""
    try:
        with open(f"{run}/{HOLDER_DIR}/{NETWORK_FILE}", encoding="utf-8") as file:
            name, _, reason = file.read().partition("\n")
    except FileNotFoundError:
        return NetworkHelper("", "the keeper has none")
    return NetworkHelper(name, reason)


def bind_resolv_conf(run: str) -> None:
    """In a mount namespace of the engine's own: name servers on the host's loopback are replaced.

    What the engine reads, and gives to containers, is then right for the network that it is in.
    """
    if not network_helper(run).name:
        return
    try:
        with open(RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return
    changed = resolv_conf(text)
    if changed.split() != text.split():
        write_file(f"{run}/{HOLDER_DIR}/resolv.conf", changed)
        mounts.mount(
            f"{run}/{HOLDER_DIR}/resolv.conf", os.path.realpath(RESOLV_CONF), None, mounts.MS.BIND
        )


def cgroup_error(run: str) -> str:
    """Why containers have no cgroup; empty where they have."""
    try:
        with open(f"{run}/{HOLDER_DIR}/{CGROUP_FILE}", encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write_file(path: str, text: str) -> None:
    """Write one of these files."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def resolv_conf(host: str) -> str:
    """The host's /etc/resolv.conf, where servers on its loopback are the helper. Pure."""
    lines: list[str] = []
    for line in host.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and _is_loopback(words[1]):
            line = f"nameserver {RESOLVER}"
            if line in lines:
                continue
        lines.append(line)
    return "\n".join(lines) + "\n"


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
