"""Connect the engine's network namespace to the host's: pasta(1), else slirp4netns(1).

Both run in the host's network namespace with the user's privileges and have a tap device in the
engine's. They exit with the namespace holder. They do not forward ports: the holder binds them
(:mod:`jaula.rootless.port_forwarder`), so a port in use is reported at once.

Neither may map an address to the host's loopback, since a container must not reach services that
are for the host's own programs. Both assign the same address, which no host interface has, so the
host's own addresses lead to the host.

A name server on the host's loopback is not reachable from the engine and its containers. Both
helpers forward queries to :data:`~jaula.rootless.holder_state.RESOLVER` to it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaula.rootless.holder_state import PASTA_PID_FILE, RESOLVER, NetworkHelper

START_TIMEOUT = 10.0  # seconds
TUN = "/dev/net/tun"
ADDRESS, NETMASK, GATEWAY = "10.0.2.100", "24", "10.0.2.2"  # fixed in slirp4netns
INTERFACE = "tap0"


class Namespaces(NamedTuple):
    """Paths of the holder's namespaces."""

    user: str
    net: str


def pasta_command(program: str, namespaces: Namespaces, pid_file: str) -> list[str]:
    """Return the pasta command.

    pasta forks to the background when it is ready, and exits with the namespace.
    """
    return [
        *(program, "--quiet", "--config-net", "--ipv4-only", "--no-map-gw"),
        *("-a", ADDRESS, "-n", NETMASK, "-g", GATEWAY, "-I", INTERFACE),
        *("--dns-forward", RESOLVER),
        *("-t", "none", "-u", "none", "-T", "none", "-U", "none"),
        *("--pid", pid_file, "--userns", namespaces.user, "--netns", namespaces.net),
    ]


def slirp4netns_command(
    program: str, namespaces: Namespaces, ready: int, exit_fd: int
) -> list[str]:
    """Return the slirp4netns command, which stays in the foreground until ``exit_fd`` hangs up."""
    return [
        *(program, "--configure", "--mtu=65520", "--disable-host-loopback"),
        *(f"--ready-fd={ready}", f"--exit-fd={exit_fd}"),
        *(f"--userns-path={namespaces.user}", "--netns-type=path", namespaces.net, INTERFACE),
    ]


def start(
    namespaces: Namespaces, directory: str, exit_fd: int | None, which: Callable[[str], str | None]
) -> NetworkHelper:
    """Start the first helper that works.

    ``exit_fd`` hangs up when the holder exits. Without it slirp4netns, which needs it, is not
    tried.
    """
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:  # pasta would hang instead of failing
        return NetworkHelper("", f"{TUN} cannot be opened: {error.strerror}")
    reasons = []
    for name in ("pasta", "slirp4netns"):
        program = which(name)
        if program is None:
            reasons.append(f"{name} is not installed")
            continue
        log = f"{directory}/{name}.log"
        if name == "pasta":
            started = _run(pasta_command(program, namespaces, f"{directory}/{PASTA_PID_FILE}"), log)
        elif exit_fd is not None:
            started = _run_until_ready(program, namespaces, exit_fd, log)
        else:
            continue
        if started:
            return NetworkHelper(name)
        reasons.append(f"{name} failed ({_last_line(log) or f'it does not respond; see {log}'})")
    return NetworkHelper("", "; ".join(reasons))


def _spawn(argv: list[str], log: str, inherit: Sequence[int] = ()) -> int:
    for fd in inherit:
        os.set_inheritable(fd, True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return os.posix_spawn(
            argv[0],
            argv,
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
        for fd in inherit:
            os.set_inheritable(fd, False)


def _run(argv: list[str], log: str) -> bool:
    """Run a program until it forks to the background. Return whether it did; kill it if not."""
    pid = _spawn(argv, log)
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.005)
    _kill(pid)
    return False


def _run_until_ready(program: str, namespaces: Namespaces, exit_fd: int, log: str) -> bool:
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    try:
        argv = slirp4netns_command(program, namespaces, ready_write, exit_fd)
        pid = _spawn(argv, log, (ready_write, exit_fd))
        os.close(ready_write)
        from jaula.kernel.poll import readable

        if readable(START_TIMEOUT, ready_read) and os.read(ready_read, 1):
            return True
        _kill(pid)
        return False
    finally:
        os.close(ready_read)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _last_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(65536).strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""
