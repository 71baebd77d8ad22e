"""What joins an engine's network to outside: pasta(1), or slirp4netns(1) where that is missing.

Both run in the host's network namespace with the user's own rights and have a tap device in the
engine's. They end by themselves when the keeper does. Ports are not their affair: the keeper holds
them (:mod:`jaula.rootless.port_forwarder`), so an address that is taken is known at once.

Neither may map an address to the host's loopback: a container would reach what only the host's own
programs should. Both give the engine's network the same address, which is none of the host's, so
that the host's own addresses lead to the host.

A name server on the host's loopback is out of reach for the engine and its containers. Both helpers
answer at :data:`~jaula.rootless.state.RESOLVER` in its place.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaula.rootless.state import RESOLVER, NetworkHelper

START_TIMEOUT = 10.0  # seconds until a helper is given up
TUN = "/dev/net/tun"
ADDRESS, NETMASK, GATEWAY = "10.0.2.100", "24", "10.0.2.2"  # slirp4netns has no other
INTERFACE = "tap0"


class Namespaces(NamedTuple):
    """Paths of the keeper's namespaces."""

    user: str
    net: str


def pasta_command(program: str, spaces: Namespaces, pid_file: str) -> list[str]:
    """The command: it goes to the background when all is there, and ends with the namespace."""
    return [
        *(program, "--quiet", "--config-net", "--ipv4-only", "--no-map-gw"),
        *("-a", ADDRESS, "-n", NETMASK, "-g", GATEWAY, "-I", INTERFACE),
        *("--dns-forward", RESOLVER),
        *("-t", "none", "-u", "none", "-T", "none", "-U", "none"),
        *("--pid", pid_file, "--userns", spaces.user, "--netns", spaces.net),
    ]


def slirp4netns_command(program: str, spaces: Namespaces, ready: int, exit_fd: int) -> list[str]:
    """The command: it stays in the foreground, and ends when ``exit_fd`` hangs up."""
    return [
        *(program, "--configure", "--mtu=65520", "--disable-host-loopback"),
        *(f"--ready-fd={ready}", f"--exit-fd={exit_fd}"),
        *(f"--userns-path={spaces.user}", "--netns-type=path", spaces.net, INTERFACE),
    ]


def start(
    spaces: Namespaces, directory: str, exit_fd: int | None, find: Callable[[str], str | None]
) -> NetworkHelper:
    """Start the first helper that works.

    ``exit_fd`` hangs up when the keeper ends; without it slirp4netns, which needs it, is left out.
    """
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:  # pasta would hang instead of saying so
        return NetworkHelper("", f"{TUN} cannot be opened: {error.strerror}")
    reasons = []
    for name in ("pasta", "slirp4netns"):
        program = find(name)
        if program is None:
            reasons.append(f"{name} is not installed")
            continue
        log = f"{directory}/{name}.log"
        if name == "pasta":
            done = _run(pasta_command(program, spaces, f"{directory}/pasta.pid"), log)
        elif exit_fd is not None:
            done = _run_until_ready(program, spaces, exit_fd, log)
        else:
            continue
        if done:
            return NetworkHelper(name)
        reasons.append(f"{name} failed ({_last_line(log) or f'it does not answer; see {log}'})")
    return NetworkHelper("", "; ".join(reasons))


def _spawn(words: list[str], log: str, keep: Sequence[int] = ()) -> int:
    for fd in keep:
        os.set_inheritable(fd, True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return os.posix_spawn(
            words[0],
            words,
            {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "HOME")},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGHUP],
        )
    finally:
        for fd in keep:
            os.set_inheritable(fd, False)


def _run(words: list[str], log: str) -> bool:
    """Whether a program that goes to the background did so; one that does not is ended."""
    pid = _spawn(words, log)
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.005)
    _end(pid)
    return False


def _run_until_ready(program: str, spaces: Namespaces, exit_fd: int, log: str) -> bool:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        words = slirp4netns_command(program, spaces, writing, exit_fd)
        pid = _spawn(words, log, (writing, exit_fd))
        os.close(writing)
        import select

        if select.select([reading], [], [], START_TIMEOUT)[0] and os.read(reading, 1):
            return True
        _end(pid)
        return False
    finally:
        os.close(reading)


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _last_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(65536).strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""
