"""What goes between containers, and from outside to a published port, engine by engine."""

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
GROUP = 20  # starts that are compared: the first and the last so many


@dataclass
class Place:
    """One engine with its host, the machine outside, and two containers of a network."""

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
    """A link between the host and the machine outside."""
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


def prepare(place: Place, archive: Path) -> None:
    engine = place.engine
    with in_netns(place.host):
        engine.start()
    engine.import_image(archive)
    engine.run("network", "create", "bench", stdout=subprocess.DEVNULL)
    for name, flags in (("one", ("-p", f"{PUBLISHED}:{PORT}")), ("two", ())):
        words = ("run", "-d", "--name", f"bench-{name}", "--network", "bench", *flags)
        engine.run(*words, IMAGE, "sleep", "100000", stdout=subprocess.DEVNULL)
        shown = engine.run(
            *(
                "inspect",
                "--format",
                "{{.State.Pid}} {{.NetworkSettings.Networks.bench.IPAddress}}",
            ),
            *(f"bench-{name}",),
            capture_output=True,
            text=True,
        )
        pid, address = shown.stdout.split()
        place.spaces.append(open_namespace(int(pid), "net"))
        place.addresses.append(address)


def look_up(place: Place) -> float:
    """Microseconds for the answer to a question for a container's name: the median."""
    words = b"".join(bytes([len(w)]) + w for w in (b"bench-one",)) + b"\0"
    taken = []
    with in_netns(place.spaces[1]):
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with asking:
        asking.settimeout(5)
        asking.connect(("127.0.0.11", 53))
        for number in range(QUESTIONS):
            question = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + words + b"\0\1\0\1"
            start = time.perf_counter()
            asking.send(question)
            answer = asking.recv(512)
            taken.append(time.perf_counter() - start)
            assert socket.inet_aton(place.addresses[0]) in answer
    return statistics.median(taken) * 1e6


def between(measure: Callable[..., float]) -> Callable[[Place], float]:
    return lambda p: measure(p.spaces[1], (p.addresses[0], PORT), p.spaces[0])


def published(measure: Callable[..., float]) -> Callable[[Place], float]:
    return lambda p: measure(p.outside, (HOST, PUBLISHED), p.spaces[0])


MEASURES: dict[str, tuple[str, bool, Callable[[Place], float]]] = {
    # title, whether more is better
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


def crowd(place: Place, count: int) -> tuple[float, float]:
    """Milliseconds of a start with few and with ``count`` endpoints on one network."""
    place.engine.run("network", "create", "crowd", stdout=subprocess.DEVNULL)
    connection = place.engine.connect()
    body = {"Image": IMAGE, "Cmd": ["sleep", "100000"], "HostConfig": {"NetworkMode": "crowd"}}
    taken, names = [], []
    for _ in range(count):
        made = connection.call("POST", "/v1.41/containers/create", body)
        start = time.perf_counter()
        connection.call("POST", f"/v1.41/containers/{made['Id']}/start")
        taken.append((time.perf_counter() - start) * 1e3)
        names.append(str(made["Id"]))
    place.engine.remove(*names)
    return statistics.median(taken[:GROUP]), statistics.median(taken[-GROUP:])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each measure (7)")
    parser.add_argument("--endpoints", type=int, default=200, help="of the crowded network (200)")
    parser.add_argument("--engines", default="docker,jaula", help="which, in this order")
    parser.add_argument("--only", action="append", choices=[*MEASURES, "crowd"])
    options = parser.parse_args(arguments)
    wanted = options.only or [*MEASURES, "crowd"]
    kinds = options.engines.split(",")
    samples: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="jb", dir="/var/tmp") as name:
        base = Path(name)
        rootfs = engines.make_rootfs(base)
        places: list[Place] = []
        try:
            for kind in kinds:
                host, outside = new_namespace(), new_namespace()
                wire(host, outside)
                places.append(Place(engines.KINDS[kind](base / kind), host, outside))
                prepare(places[-1], rootfs.archive)
            for key in (key for key in MEASURES if key in wanted):
                print(f"measuring {key}", file=sys.stderr)
                rows = samples.setdefault(key, {kind: [] for kind in kinds})
                for _ in range(options.rounds):
                    for place in places:
                        rows[place.engine.name].append(MEASURES[key][2](place))
            if "crowd" in wanted:
                for place in places:
                    print(f"measuring crowd of {place.engine.name}", file=sys.stderr)
                    few, many = crowd(place, options.endpoints)
                    rows = samples.setdefault("few", {})
                    rows[place.engine.name] = [few]
                    samples.setdefault("many", {})[place.engine.name] = [many]
        finally:
            for place in places:
                place.engine.stop()
    text = table(samples, kinds, options.endpoints)
    print(text)
    if not options.only:
        results = {"machine": report.machine(), "options": vars(options), **samples}
        (HERE / "results/network.json").write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "results/network.md").write_text(text)
    return 0


def table(samples: dict[str, dict[str, list[float]]], kinds: list[str], endpoints: int) -> str:
    """The medians, side by side."""
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
        shown = [f"{statistics.median(rows[kind]):.1f}" if rows.get(kind) else "" for kind in kinds]
        lines.append(f"| {titles[key]} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"
