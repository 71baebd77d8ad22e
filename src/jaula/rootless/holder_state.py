"""Files of the namespace holder in the engine's run directory, as the engine reads them.

Imported by the engine before it forks its zygote, so imports must be few.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from jaula.kernel import mounts

HOLDER_DIR = "keeper"  # in the engine's run directory; the files below are in it
KEEPALIVE_FIFO, CONTROL_SOCKET = "alive", "control"
NETWORK_FILE = "network"  # the network helper's name, or the reason why none runs
CGROUP_FILE = "cgroup"  # the reason why containers have no cgroup; empty if they have
PASTA_PID_FILE = "pasta.pid"
KEEPALIVE_ENV = "JAULA_KEEPER_FD"  # environment variable with the descriptor of the fifo
RESOLV_CONF = "/etc/resolv.conf"
RESOLVER = "10.0.2.3"
"""Address at which network helpers forward queries to a name server on the host's loopback."""


class NetworkHelper(NamedTuple):
    """The running network helper, or '' and the reason why none runs."""

    name: str
    reason: str = ""


def protect_keepalive() -> None:
    """Set close-on-exec on the keep-alive descriptor, once the engine has executed itself."""
    number = os.environ.pop(KEEPALIVE_ENV, "")
    if number.isdigit():
        os.set_inheritable(int(number), False)


def open_keepalive(run: str) -> int:
    """Return a descriptor that keeps the holder running while any process has it open."""
    return open_fifo(f"{run}/{HOLDER_DIR}")


def open_fifo(directory: str) -> int:
    """Open the keep-alive fifo in the holder's directory.

    :raises OSError: ENXIO when the holder has exited.
    """
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(f"{directory}/{KEEPALIVE_FIFO}", flags)


def read_network_helper(run: str) -> NetworkHelper:
    """Return the network helper of the engine."""
    try:
        with open(f"{run}/{HOLDER_DIR}/{NETWORK_FILE}", encoding="utf-8") as file:
            name, _, reason = file.read().partition("\n")
    except FileNotFoundError:
        return NetworkHelper("", "none was started")
    return NetworkHelper(name, reason)


def bind_resolv_conf(run: str) -> None:
    """Replace name servers on the host's loopback in /etc/resolv.conf, by a bind mount.

    The calling process is in its own mount namespace. The engine and its containers then have the
    name servers that their network can reach.
    """
    if not read_network_helper(run).name:
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
    """Return the reason why containers have no cgroup, or '' if they have."""
    try:
        with open(f"{run}/{HOLDER_DIR}/{CGROUP_FILE}", encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write_file(path: str, text: str) -> None:
    """Write one of the holder's files."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def resolv_conf(host: str) -> str:
    """Return /etc/resolv.conf with the helper's address for servers on loopback. Pure."""
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
