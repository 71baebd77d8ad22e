"""Isolation of a default container of each engine, read from the kernel.

Each engine runs two containers. One sleeps, and its /proc files and cgroups are read from outside.
In the other, the program of ``jaula verify --probe`` makes its attempts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import engines
import report
from engines import IMAGE, Engine

from jaula.features.verify.escape import attempts, program, results, sysv_shm
from jaula.features.verify.escape import network as connections
from jaula.features.verify.escape.network import NetworkTargets
from jaula.security.capability_sets import decode
from jaula.security.masked_paths import MASKED_PATHS, READONLY_PATHS

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- isolation: begin -->", "<!-- isolation: end -->"
Rows = dict[str, str]


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/isolation")
    parser.add_argument("--engines", default="jaula,docker,podman", help="engines, in this order")
    parser.add_argument("--write", type=Path, help="document in which to replace the table")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "isolation.json")
    options = parser.parse_args(words)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    rows: dict[str, Rows] = {}
    with tempfile.TemporaryDirectory(prefix="jb", dir="/var/tmp") as name:
        base = Path(name)
        rootfs = engines.make_rootfs(base)
        for kind in options.engines.split(","):
            engine = engines.KINDS[kind](base / kind)
            print(f"measuring {kind}", file=sys.stderr)
            try:
                engine.start()
                engine.import_image(rootfs.archive)
                rows[kind] = measure(engine, base)
            finally:
                engine.stop()
    text = table(rows)
    print(text)
    options.output.write_text(json.dumps({"machine": report.machine(), "rows": rows}, indent=1))
    if options.write is not None:
        replace(options.write, text)
    return 0


def measure(engine: Engine, base: Path) -> Rows:
    """Return the rows of one engine."""
    rows: Rows = {"version": version(engine)}
    started = engine.run("run", "-d", IMAGE, "sleep", "600", capture_output=True, text=True)
    container = started.stdout.strip()
    pid = engine.pid_of(container)
    rows |= from_outside(pid)
    rows |= from_inside(engine, container)
    rows |= attempted(engine, base, address_of(pid))
    engine.remove(container)
    return rows


def version(engine: Engine) -> str:
    text = engine.run("--version", capture_output=True, text=True, check=False).stdout
    match = re.search(r"\d+\.\d+[^\s,]*", text)
    return match[0] if match else "?"


# -- from outside ----------------------------------------------------------------------------


def from_outside(pid: int) -> Rows:
    """Return rows from /proc and the cgroups of init."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    bounding = int(status["CapBnd"], 16)
    shared = [
        kind
        for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
        if os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
    ]
    outside = [line.split() for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines()]
    return {
        "capabilities": f"{bounding.bit_count()}: {bounding:016x}",
        "capabilities in the host's user namespace": "none"
        if "user" not in shared
        else ", ".join(c.removeprefix("CAP_").lower() for c in decode(bounding)),
        "namespaces shared with the host": ", ".join(shared),
        "root inside is on the host": f"uid {outside[0][1]}",
        "inheritable and ambient sets": "empty"
        if int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
        else "not empty",
        "seccomp": f"mode {status['Seccomp'].strip()}",
        "no_new_privs": "yes" if status["NoNewPrivs"].strip() == "1" else "no",
        "limit of processes": cgroup(pid, "pids", "pids.max"),
        "limit of memory": cgroup(pid, "memory", "memory.limit_in_bytes", "memory.max"),
        "limit of open files": open_files(pid),
        "device rules": device_rules(pid),
        "mounts that the host's mounts reach": str(received(pid)),
    }


def cgroup(pid: int, controller: str, *names: str) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            directory = Path("/sys/fs/cgroup", controller, path.lstrip("/"))
        elif not controllers:
            directory = Path("/sys/fs/cgroup", path.lstrip("/"))
        else:
            continue
        for name in names:
            if (directory / name).exists():
                text = (directory / name).read_text().strip()
                return "none" if text == "max" or text.startswith("92233720") else text
    return "none"


def open_files(pid: int) -> str:
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            return line.split()[4]
    return "?"


def device_rules(pid: int) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "devices":
            rules = Path("/sys/fs/cgroup/devices", path.lstrip("/"), "devices.list").read_text()
            lines = rules.splitlines()
            any_node = [rule for rule in lines if "*:*" in rule]
            return f"{len(lines)}, any node may be made" if any_node else str(len(lines))
    return "a BPF program"


def received(pid: int) -> int:
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return sum("master:" in line.partition(" - ")[0] for line in lines)


def address_of(pid: int) -> str:
    """Return the IPv4 address of a container."""
    words = ("nsenter", "-t", str(pid), "-n", "ip", "-4", "-br", "address")
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    addresses = re.findall(r"(?!127\.)\b(\d+\.\d+\.\d+\.\d+)/", text)
    return addresses[-1] if addresses else "192.0.2.1"


# -- from inside -----------------------------------------------------------------------------

WRITABLE = """
find /proc/sys /sys -type f 2>/dev/null | while read -r f; do
    true 2>/dev/null >> "$f" && echo x
done 2>/dev/null | wc -l
"""
"""Opens each file for writing: ``test -w`` looks at the mode only if the caller is root."""


def from_inside(engine: Engine, container: str) -> Rows:
    """Return rows that a shell in the container counts."""

    def count(script: str) -> str:
        done = engine.run("exec", container, "sh", "-c", script, capture_output=True, text=True)
        return str(done.stdout).strip()

    return {
        "files of /proc/sys and /sys that root may write": count(WRITABLE),
        "device nodes in /dev": count("find /dev -type c -o -type b | grep -v pts | wc -l"),
    }


# -- attempts --------------------------------------------------------------------------------


@contextlib.contextmanager
def host_targets() -> Iterator[dict[str, Any]]:
    """Create objects on the host: an abstract socket, ports, a file, shared memory."""
    name = b"\0jaula-bench-" + os.urandom(8).hex().encode()
    with (
        tempfile.TemporaryDirectory(prefix="jb") as directory,
        socket.socket(socket.AF_UNIX) as unix,
        socket.create_server(("127.0.0.1", 0)) as loopback,
        socket.create_server(("0.0.0.0", 0)) as every,
        sysv_shm.segment() as key,
    ):
        secret = Path(directory, "secret")
        secret.write_text("only the host may read this\n")
        Path(directory).chmod(0o755)
        unix.bind(name)
        unix.listen()
        yield {
            "abstract": name,
            "loopback": loopback.getsockname()[1],
            "every": every.getsockname()[1],
            "file": str(secret),
            "memory": key,
        }


GATEWAY = re.compile(r"\d+\.\d+\.\d+\.")


def attempted(engine: Engine, base: Path, neighbour: str) -> Rows:
    """Run the program of attempts and return a row for each group of them."""
    with host_targets() as of_host:
        tries = [
            *attempts.calls(None), *attempts.families(None), *attempts.terminals(None),
            *attempts.capabilities(None), *attempts.masked_reads(MASKED_PATHS),
            *attempts.writes(READONLY_PATHS, None), *attempts.devices(None),
            *connections.network(of_host["abstract"], of_host["loopback"], NetworkTargets()),
            *attempts.host_objects(
                of_host["file"], os.getpid(), of_host["memory"], pids=None, ipc=None
            ),
            *reach(neighbour, of_host["every"]),
        ]  # fmt: skip
        entries = attempts.table(tries)
        path = base / "probe"
        path.write_bytes(program.build(entries))
        path.chmod(0o755)
        done = engine.run(
            *("run", "--rm", "-v", f"{path}:/probe:ro", IMAGE, "/probe"),
            capture_output=True, text=True,
        )  # fmt: skip
        answers = program.read(done.stdout, len(entries))
    outcomes = results.evaluate(tries, answers)
    rows: Rows = {}
    for group in dict.fromkeys(each.attempt.group for each in outcomes):
        own = [each for each in outcomes if each.attempt.group == group]
        permitted = [each.attempt.name for each in own if each.refused is False]
        refused = sum(each.refused is True for each in own)
        text = f"{refused} of {len(own)} refused"
        if permitted:
            text += f"; not: {', '.join(permitted)}"
        rows[f"tried: {group}"] = text
    return rows


def reach(neighbour: str, port: int) -> list[attempts.Attempt]:
    """Return attempts to reach a port of the host by the gateway, and another container."""
    parts = [int(part) for part in neighbour.split(".")]
    gateway = (*parts[:3], 1)
    result = []
    for name, address, number in (
        ("a port of the host by the gateway", gateway, port),
        ("another container answers", tuple(parts), 9),
    ):
        steps = (
            attempts.call("socket", 2, 1, 0),
            attempts.call("connect", 3, connections.inet_address(address, number), 16),
        )
        refusals = connections.UNREACHED
        if name.startswith("another"):
            refusals -= {111}  # ECONNREFUSED is an answer of the container
        result.append(attempts.Attempt(group="reach", name=name, steps=steps, refusals=refusals))
    return result


# -- the table -------------------------------------------------------------------------------


def table(engine_rows: dict[str, Rows]) -> str:
    """Return a Markdown table with the command that wrote it and the date."""
    names = list(engine_rows)
    keys = list(dict.fromkeys(key for rows in engine_rows.values() for key in rows))
    machine = report.machine()
    kernel = machine["kernel"].partition("-")[0]
    where = f"Linux {kernel}, cgroup {machine['cgroup']}"
    when = time.strftime("%Y-%m-%d")
    lines = [
        f"Measured on {when} by `bench/isolation` on {where}; every engine with its defaults.",
        "",
        "| | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for key in keys:
        cells = [engine_rows[name].get(key, "") for name in names]
        lines.append(f"| {key} | " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)


def replace(path: Path, text: str) -> None:
    """Replace the table between its two markers.

    :raises ValueError: when the document lacks them
    """
    document = path.read_text()
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no markers of the table")
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}")
