"""Measures of traffic between containers, and from outside to a published port, for each engine."""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import engines
import report
from engines import IMAGE, Engine
from traffic import PORT, connecting, round_trip, throughput

from jaula.kernel.namespaces import CLONE, open_namespace, setns, unshare
from jaula.kernel.netlink import in_netns
from jaula.kernel.rtnetlink import Rtnetlink, add_address, add_default_route, add_veth, set_link

HERE = Path(__file__).resolve().parent
HOST, OUTSIDE = "198.51.100.1", "198.51.100.2"  # TEST-NET-2
PUBLISHED = 15201
QUESTIONS = 500
SHOWN = "{{.State.Pid}} {{.NetworkSettings.Networks.bench.IPAddress}}"
GROUP = 20  # number of starts in the first and in the last group


@dataclass
class Site:
    """One engine, its host, the machine outside, and two containers of a network."""

    engine: Engine
    host: int
    outside: int
    spaces: list[int] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)


def new_namespace() -> int:
    home = open_namespace("thread-self", "net")
    try:
        unshare(CLONE.NEWNET)
        made = open_namespace("thread-self", "net")
    finally:
        setns(home, CLONE.NEWNET)
        os.close(home)
    with Rtnetlink(made) as inside:
        inside.send(set_link("lo", up=True))
    return made


def wire(host: int, outside: int) -> None:
    """Connect the host and the machine outside by a link."""
    with Rtnetlink(host) as near, Rtnetlink(outside) as far:
        near.send(add_veth("up0", mtu=1500, peer_name="eth0", peer_netns=outside))
        for links, name, address, other in (
            (near, "up0", HOST, OUTSIDE),
            (far, "eth0", OUTSIDE, HOST),
        ):
            link = links.link(name)
            assert link is not None
            links.send(
                set_link(link.index, up=True),
                add_address(link.index, address, 24),
                add_default_route(other),
            )


def prepare(site: Site, archive: Path) -> None:
    engine = site.engine
    with in_netns(site.host):
        engine.start()
    engine.import_image(archive)
    engine.run("network", "create", "bench", stdout=subprocess.DEVNULL)
    for name, flags in (("one", ("-p", f"{PUBLISHED}:{PORT}")), ("two", ())):
        words = ("run", "-d", "--name", f"bench-{name}", "--network", "bench", *flags)
        engine.run(*words, IMAGE, "sleep", "100000", stdout=subprocess.DEVNULL)
        result = engine.run(
            *(
                "inspect",
                "--format",
                "{{.State.Pid}} {{.NetworkSettings.Networks.bench.IPAddress}}",
            ),
            *(f"bench-{name}",),
            capture_output=True,
            text=True,
        )
        pid, address = result.stdout.split()
        site.spaces.append(open_namespace(int(pid), "net"))
        site.addresses.append(address)


def look_up(site: Site) -> float:
    """Return the median microseconds of a DNS answer for a container's name."""
    words = b"".join(bytes([len(w)]) + w for w in (b"bench-one",)) + b"\0"
    times = []
    with in_netns(site.spaces[1]):
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asking:
        asking.settimeout(5)
        asking.connect(("127.0.0.11", 53))
        for number in range(QUESTIONS):
            question = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + words + b"\0\1\0\1"
            start = time.perf_counter()
            asking.send(question)
            answer = asking.recv(512)
            times.append(time.perf_counter() - start)
            assert socket.inet_aton(site.addresses[0]) in answer
    return statistics.median(times) * 1e6


def between(measure: Callable[..., float]) -> Callable[[Site], float]:
    return lambda p: measure(p.spaces[1], (p.addresses[0], PORT), p.spaces[0])


def published(measure: Callable[..., float]) -> Callable[[Site], float]:
    return lambda p: measure(p.outside, (HOST, PUBLISHED), p.spaces[0])


MEASURES: dict[str, tuple[str, bool, Callable[[Site], float]]] = {
    # title, whether a higher value is better
    "between": ("container to container, one TCP connection (Gbit/s)", True, between(throughput)),
    "between-latency": ("container to container, one byte and back (µs)", False,
                        between(round_trip)),
    "published": ("outside to a published port, one TCP connection (Gbit/s)", True,
                  published(throughput)),
    "published-latency": ("outside to a published port, one byte and back (µs)", False,
                          published(round_trip)),
    "connect": ("outside to a published port, a new connection (µs)", False,
                published(connecting)),
    "names": ("a container's name from the resolver (µs)", False, look_up),
}  # fmt: skip


def crowd(site: Site, count: int) -> tuple[float, float]:
    """Return milliseconds of a start with few and with ``count`` endpoints on one network."""
    site.engine.run("network", "create", "crowd", stdout=subprocess.DEVNULL)
    connection = site.engine.connect()
    body = {"Image": IMAGE, "Cmd": ["sleep", "100000"], "HostConfig": {"NetworkMode": "crowd"}}
    times, names = [], []
    for _ in range(count):
        made = connection.call("POST", "/v1.41/containers/create", body)
        start = time.perf_counter()
        connection.call("POST", f"/v1.41/containers/{made['Id']}/start")
        times.append((time.perf_counter() - start) * 1e3)
        names.append(str(made["Id"]))
    site.engine.remove(*names)
    return statistics.median(times[:GROUP]), statistics.median(times[-GROUP:])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each measure (7)")
    parser.add_argument(
        "--endpoints", type=int, default=200, help="endpoints of the large network (200)"
    )
    parser.add_argument("--engines", default="docker,jaula", help="engines, in this order")
    parser.add_argument("--only", action="append", choices=[*MEASURES, "crowd"])
    options = parser.parse_args(arguments)
    selected = options.only or [*MEASURES, "crowd"]
    kinds = options.engines.split(",")
    samples: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="jb", dir="/var/tmp") as name:
        base = Path(name)
        rootfs = engines.make_rootfs(base)
        sites: list[Site] = []
        try:
            for kind in kinds:
                host, outside = new_namespace(), new_namespace()
                wire(host, outside)
                sites.append(Site(engines.KINDS[kind](base / kind), host, outside))
                prepare(sites[-1], rootfs.archive)
            for key in (key for key in MEASURES if key in selected):
                print(f"measuring {key}", file=sys.stderr)
                rows = samples.setdefault(key, {kind: [] for kind in kinds})
                for _ in range(options.rounds):
                    for site in sites:
                        rows[site.engine.name].append(MEASURES[key][2](site))
            if "crowd" in selected:
                for site in sites:
                    print(f"measuring crowd of {site.engine.name}", file=sys.stderr)
                    few, many = crowd(site, options.endpoints)
                    rows = samples.setdefault("few", {})
                    rows[site.engine.name] = [few]
                    samples.setdefault("many", {})[site.engine.name] = [many]
        finally:
            for site in sites:
                site.engine.stop()
    text = table(samples, kinds, options.endpoints)
    print(text)
    if not options.only:
        results = {"machine": report.machine(), "options": vars(options), **samples}
        (HERE / "results/network.json").write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "results/network.md").write_text(text)
    return 0


def table(samples: dict[str, dict[str, list[float]]], kinds: list[str], endpoints: int) -> str:
    """Return a table of the medians."""
    titles = {key: title for key, (title, _, _) in MEASURES.items()}
    titles |= {"few": f"start of a container, the first {GROUP} of a network (ms)"}
    titles |= {"many": f"start of a container, the last {GROUP} of {endpoints} of a network (ms)"}
    lines = [
        ", ".join(f"{key} {value}" for key, value in report.machine().items()),
        "",
        f"| measure | {' | '.join(kinds)} |",
        f"| --- |{' ---: |' * len(kinds)}",
    ]
    for key, rows in samples.items():
        cells = [f"{statistics.median(rows[kind]):.1f}" if rows.get(kind) else "" for kind in kinds]
        lines.append(f"| {titles[key]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
