"""Measures of profiles: starts with and without one, and traffic under egress and listen lists."""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from engines import IMAGE, Jaula, make_rootfs
from traffic import connecting, round_trip

from jaula.kernel.namespaces import open_namespace
from jaula.kernel.netlink import in_netns

UDP_PORT, UDP_ROUND_TRIPS = 5202, 2000
# Nothing but the engine's own work differs: the program needs what the list has.
DOCUMENT = """name = "bench"
[seccomp.syscalls]
x86_64 = [
    "access", "arch_prctl", "brk", "clock_nanosleep", "close", "exit_group", "fstat", "getpid",
    "getrandom", "getuid", "ioctl", "mmap", "mprotect", "munmap", "nanosleep", "newfstatat", "open",
    "openat", "pread64", "prctl", "prlimit64", "read", "rseq", "rt_sigaction", "rt_sigprocmask",
    "set_robust_list", "set_tid_address", "setgid", "setuid", "write",
]
[files]
read = ["/bin/", "/etc/", "/lib/", "/lib64/"]
execute = ["/bin/", "/lib/", "/lib64/"]
[limits]
pids = 20
memory = 67108864
"""
LISTEN, EGRESS = 'listen = ["tcp:80"]\n', 'egress = ["tcp:192.0.2.1:443"]\n'
STARTS = {
    "no profile": "default",
    "profile": DOCUMENT,
    "profile with a listen list": f"{DOCUMENT}[network]\n{LISTEN}",
    "profile with an egress list": f"{DOCUMENT}[network]\n{EGRESS}",
    "profile with both lists": f"{DOCUMENT}[network]\n{LISTEN}{EGRESS}",
}


def starts(engine: Jaula, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of the start request of each variant; the first round is not counted."""
    client = engine.connect()
    samples: dict[str, list[float]] = {name: [] for name in STARTS}
    try:
        for number in range(rounds + 1):
            order = list(STARTS.items())
            random.Random(number).shuffle(order)
            for name, profile in order:
                host = {"Profile": profile}
                body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": host}
                path = f"/containers/{client.call('POST', '/containers/create', body)['Id']}"
                begin = time.perf_counter()
                client.call("POST", f"{path}/start")
                elapsed = (time.perf_counter() - begin) * 1e3
                client.call("DELETE", f"{path}?force=1")
                if number:
                    samples[name].append(elapsed)
    finally:
        client.close()
    return samples


class Box(NamedTuple):
    """A container: its network namespace and its address."""

    path: str
    net: int
    address: str


@contextmanager
def box(client: Any, **host: Any) -> Iterator[Box]:
    """Run a container with these members of HostConfig."""
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": host}
    path = f"/containers/{client.call('POST', '/containers/create', body)['Id']}"
    try:
        client.call("POST", f"{path}/start")
        document = client.call("GET", f"{path}/json")
        net = open_namespace(str(document["State"]["Pid"]), "net")
        try:
            address = document["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
            yield Box(path, net, address)
        finally:
            os.close(net)
    finally:
        client.call("DELETE", f"{path}?force=1")


def datagrams(source: int, target: tuple[str, int], server: int) -> float:
    """Return the median microseconds of a round trip of one datagram."""
    with in_netns(server):
        near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.bind(("0.0.0.0", target[1]))
    with in_netns(source):
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                data, address = near.recvfrom(64)
                near.sendto(data, address)
        finally:
            os._exit(0)
    try:
        with near, far:
            far.settimeout(10)
            far.connect(target)
            times = []
            for _ in range(UDP_ROUND_TRIPS):
                start = time.perf_counter()
                far.send(b"x")
                far.recv(1)
                times.append(time.perf_counter() - start)
            return statistics.median(times) * 1e6
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def items(number: int, address: str) -> list[str]:
    """Return an egress list of this length; the destination of the traffic is the last one."""
    others = [f"tcp:192.0.2.{each % 256}:{1000 + each}" for each in range(number - 2)]
    return [*others, f"tcp:{address}:*", f"udp:{address}:*"]


def ports(number: int) -> list[str]:
    """Return a listen list of this length, with the ports of the traffic."""
    return ["tcp:5201", f"udp:{UDP_PORT}", *(f"tcp:{1000 + each}" for each in range(number - 2))]


def traffic(engine: Jaula, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return microseconds by variant and measure.

    A container talks to another one on its bridge, and to the host. The list is that of the client
    (egress) or of the server (listen).
    """
    client = engine.connect()
    host = open_namespace("self", "net")
    result: dict[str, dict[str, list[float]]] = {}

    def sample(name: str, measure: str, value: float) -> None:
        result.setdefault(name, {}).setdefault(measure, []).append(value)

    def run(name: str, near: Box, far: Box, gateway: str) -> None:
        sample(name, "TCP connect, bridge", connecting(near.net, (far.address, 5201), far.net))
        sample(name, "TCP round trip, bridge", round_trip(near.net, (far.address, 5201), far.net))
        target = (far.address, UDP_PORT)
        sample(name, "UDP round trip, bridge", datagrams(near.net, target, far.net))
        if "listen" in name:
            sample(name, "TCP connect, host", connecting(host, (far.address, 5201), far.net))
            sample(name, "TCP round trip, host", round_trip(host, (far.address, 5201), far.net))
        else:
            sample(name, "TCP connect, host", connecting(near.net, (gateway, 5201), host))
            sample(name, "TCP round trip, host", round_trip(near.net, (gateway, 5201), host))

    try:
        with box(client) as plain, box(client) as peer:
            document = client.call("GET", f"{plain.path}/json")
            gateway = document["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
            for number in range(rounds):
                print(f"traffic, round {number + 1}", file=sys.stderr)
                run("no list on the host", plain, peer, gateway)
                for size in (2, 100):
                    allowed = [*items(size, peer.address), f"tcp:{gateway}:*"]
                    with box(client, Egress=allowed) as near:
                        run(f"egress list of {size}", near, peer, gateway)
                        if size == 2:
                            run("no list, another container has one", plain, peer, gateway)
                    with box(client, Listen=ports(size)) as far:
                        run(f"listen list of {size}", plain, far, gateway)
    finally:
        os.close(host)
        client.close()
    return result


def report(
    samples: dict[str, list[float]], measures: dict[str, dict[str, list[float]]], load: str
) -> str:
    """Return the tables. Starts are first deciles, traffic the median of the rounds."""
    tenths = {name: statistics.quantiles(values, n=10)[0] for name, values in samples.items()}
    base = tenths["no profile"]
    lines = ["| start | ms | ratio |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {value:.1f} | {value / base:.2f} |" for name, value in tenths.items()]
    columns = list(next(iter(measures.values())))
    lines += ["", f"| traffic (µs) | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for name, values in measures.items():
        cells = " | ".join(f"{statistics.median(values[column]):.1f}" for column in columns)
        lines.append(f"| {name} | {cells} |")
    return "\n".join([*lines, "", f"Load average: {load}.", ""])


def main(arguments: list[str]) -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="bench/profile")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="jb", dir="/var/tmp") as directory:
        base = Path(directory)
        rootfs = make_rootfs(base)
        engine = Jaula(base / "jaula")
        before = os.getloadavg()[0]
        engine.start()
        try:
            engine.import_image(rootfs.archive)
            samples = starts(engine, options.rounds)
            measures = traffic(engine, max(1, options.rounds // 4))
        finally:
            engine.stop()
        load = f"{before:.1f} to {os.getloadavg()[0]:.1f}"
    print(report(samples, measures, load))
    return 0
