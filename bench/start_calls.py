"""System calls and waits of container starts, from strace(1).

strace follows the engine's zygote and all that it forks. A process has a role by its name and its
parent. The shim that the zygote forks ahead of the next start is left out. A wait is a system call
that took a millisecond or more and does not wait for another process of the start. strace makes
each call slower, so the times are for comparison of one call with another, not with times of other
measures.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import engines
import report
from engines import IMAGE, Engine

LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)")
TIME = re.compile(r"<(\d+\.\d+)>$")
CHILD = re.compile(r" = (\d+) ")
FORKS = frozenset({"clone", "clone3", "fork", "vfork"})
PEERS = frozenset({"recvmsg", "recvfrom", "poll", "epoll_wait", "wait4", "waitid", "pselect6"})
WAIT = 0.001  # seconds
PAUSE = 0.7  # seconds
ORDER = ("zygote", "shim", "helper", "stage", "init")
CHILDREN = {"zygote": "shim", "shim": "helper", "helper": "stage", "stage": "init"}
AHEAD = "ahead"  # role of the processes that are forked for the next start


class Trace(NamedTuple):
    """The calls of one start, and the seconds of its waits, by role."""

    calls: dict[str, Counter[str]]
    waits: Counter[str]


def parse(text: str, roles: dict[int, str]) -> Trace:
    """Return the trace of strace's output; ``roles`` are those of the traced processes."""
    trace, roles = Trace({}, Counter()), dict(roles)
    for line in text.splitlines():
        match, took = LINE.match(line), TIME.search(line)
        if match is None or took is None:
            continue  # the call did not return, or another line has its end
        role, call = roles.get(int(match[1]), "other"), match[2]
        trace.calls.setdefault(role, Counter())[call] += 1
        if float(took[1]) >= WAIT and call not in PEERS and role != AHEAD:
            trace.waits[f"{role} {call}"] += float(took[1])
        child = CHILD.search(line)
        if child and call in FORKS:
            if role == AHEAD or (role == "zygote" and "shim" in roles.values()):
                roles[int(child[1])] = AHEAD
            else:
                roles[int(child[1])] = CHILDREN.get(role, "other")
    trace.calls.pop(AHEAD, None)
    return trace


def measure(engine: Engine, starts: int) -> list[Trace]:
    """Trace starts of idle containers, each after a pause in which the engine prepares it."""
    assert engine.process is not None
    connection = engine.connect()
    body = {"Image": IMAGE, "Cmd": ["sleep", "600"]}
    name = connection.call("POST", "/containers/create", body)["Id"]
    connection.call("POST", f"/containers/{name}/start")
    zygote = next(pid for pid in children(engine.process.pid) if comm(pid) == "jaula-zygote")
    traces = []
    for _ in range(starts):
        time.sleep(1.0)
        name = connection.call("POST", "/containers/create", body)["Id"]
        spare = [pid for pid in children(zygote) if comm(pid) == "jaula-zygote"]
        helpers = [child for pid in spare for child in children(pid)]
        inits = [child for pid in helpers for child in children(pid)]
        roles = {zygote: "zygote"} | dict.fromkeys(spare, "shim") | dict.fromkeys(helpers, "helper")
        roles |= dict.fromkeys(inits, "init")
        with tempfile.NamedTemporaryFile("r") as file:
            tracer = subprocess.Popen(
                ["strace", "-f", "-T", "-s", "0", "-o", file.name]
                + [word for pid in roles for word in ("-p", str(pid))],
                stderr=subprocess.DEVNULL,
            )
            time.sleep(PAUSE)
            connection.call("POST", f"/containers/{name}/start")
            time.sleep(PAUSE)
            tracer.send_signal(signal.SIGINT)
            tracer.wait(30)
            traces.append(parse(file.read(), roles))
    return traces


def children(pid: int) -> list[int]:
    """Return the child processes of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def comm(pid: int) -> str:
    """Return the name of a process."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/calls")
    parser.add_argument("--starts", type=int, default=5, help="traced starts (5)")
    parser.add_argument("--top", type=int, default=10, help="system calls of a process (10)")
    parser.add_argument("--output", type=Path, help="file for the counts, as JSON")
    options = parser.parse_args(words)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory(prefix="jb", dir="/var/tmp") as name:
        base = Path(name)
        engine = engines.KINDS["jaula"](base / "jaula")
        try:
            engine.start()
            engine.import_image(engines.make_rootfs(base).archive)
            traces = measure(engine, options.starts)
        finally:
            engine.stop()
    document = summary(traces)
    print("process   calls  most frequent")
    for role, counts in document["calls"].items():
        top = ", ".join(f"{call} {count:g}" for call, count in list(counts.items())[: options.top])
        print(f"{role:8} {sum(counts.values()):6g}  {top}")
    print(f"{'all':8} {sum(sum(counts.values()) for counts in document['calls'].values()):6g}")
    print("\nwait                                 ms")
    for name, milliseconds in list(document["waits"].items())[: options.top]:
        print(f"{name:33} {milliseconds:5.1f}")
    if options.output:
        document = {"machine": report.machine()} | document
        options.output.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def summary(traces: Sequence[Trace]) -> dict[str, dict[str, Any]]:
    """Return the medians of the traces: calls by role, and milliseconds of waits."""
    roles = sorted({role for trace in traces for role in trace.calls} - {"other"}, key=ORDER.index)
    calls = {}
    for role in roles:
        names = {name for trace in traces for name in trace.calls.get(role, ())}
        counts = {n: statistics.median(t.calls.get(role, Counter())[n] for t in traces)
                  for n in names}  # fmt: skip
        calls[role] = dict(
            sorted(((n, c) for n, c in counts.items() if c), key=lambda row: -row[1])
        )
    waits = {name: round(1e3 * statistics.median(trace.waits[name] for trace in traces), 1)
             for name in sorted({name for trace in traces for name in trace.waits})}  # fmt: skip
    longest = sorted((row for row in waits.items() if row[1]), key=lambda row: -row[1])
    return {"calls": calls, "waits": dict(longest)}
