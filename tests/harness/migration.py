"""Two engines in two network namespaces with one network, and a client in a third.

A fourth namespace is the switch: a bridge with a cable to each of the others. The bridges of the
engines' networks ``lan`` have the cable as a port, so a container keeps its address on a move.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import images
from harness.certificates import Authority
from harness.engine import PROJECT, PrivateEngine

SUBNET = "10.77.3"
NETWORK = "lan"
IMAGE = "counter"
NAME = "web"
ADDRESS = f"{SUBNET}.50"
CLIENT = PROJECT / "tests/harness/counter_client.py"
SERVER = PROJECT / "tests/harness/counter_server.c"
LOAD = PROJECT / "tests/harness/load_client.py"
RELAY = PROJECT / "tests/harness/counter_relay.c"


def ip(*words: str, netns: str = "") -> None:
    place = ("-n", netns) if netns else ()
    subprocess.run(["ip", *place, *words], check=True, capture_output=True)


class Site:
    """One engine with its network namespace; ``address`` is the engine's in the network."""

    def __init__(self, name: str, number: int, engine: PrivateEngine, policy: Path) -> None:
        self.name = name
        self.policy_file = policy
        self.netns = engine.netns
        self.address = f"{SUBNET}.{number}"
        self.engine = engine

    @property
    def target(self) -> str:
        return f"tcp://{self.address}:2376"

    def jaula(self, *words: str, **options: Any) -> str:
        done = self.engine.cli("jaula", *words, **options)
        assert done.returncode == 0, (self.name, words, done.stdout, done.stderr)
        return str(done.stdout)

    def refused(self, *words: str) -> str:
        done = self.engine.cli("jaula", *words)
        assert done.returncode != 0, (self.name, words, done.stdout)
        return str(done.stderr)

    def state(self, name: str) -> dict[str, Any] | None:
        reply = self.engine.request("GET", f"/containers/{name}/json")
        return reply.json() if reply.status == 200 else None

    def runs(self, name: str) -> bool:
        document = self.state(name)
        return document is not None and bool(document["State"]["Running"])

    def frozen(self, name: str) -> bool:
        document = self.state(name)
        return document is not None and document["State"]["Status"] == "paused"

    def ticks(self, name: str) -> list[int]:
        """Return the rounds that the server has printed here."""
        done = self.engine.cli("jaula", "logs", name)  # fails if the container does not exist
        return [int(number) for number in re.findall(r"tick (\d+)", str(done.stdout))]

    def descriptors(self) -> int:
        """Return how many descriptors the engine has open."""
        assert self.engine.process is not None
        return len(os.listdir(f"/proc/{self.engine.process.pid}/fd"))

    def leftovers(self) -> list[str]:
        """Return what a migration could have left: directories, mounts and links."""
        left = [str(path) for path in (self.engine.root / "lib/containers").glob("*")]
        left += [str(path) for path in (self.engine.root / "lib/checkpoints").glob("[!.]*/*")]
        left += [str(path) for path in (self.engine.run / "containers").glob("*")]
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            left += [
                target for line in file if str(self.engine.root) in (target := line.split()[4])
            ]
        links = subprocess.run(
            ["ip", "-n", self.netns, "-br", "link"], check=True, capture_output=True, text=True
        )
        return left + re.findall(r"^jlp\S+|^veth\S+", links.stdout, re.MULTILINE)

    @contextlib.contextmanager
    def policy(self, lines: str) -> Iterator[None]:
        """Let the engine follow other lines about its peer meanwhile."""
        before = self.policy_file.read_text()
        head, _, rest = before.partition("\n[user")
        self.policy_file.write_text(f"{head.splitlines()[0]}\n{lines}\n[user{rest}")
        self.reload()
        try:
            yield
        finally:
            self.policy_file.write_text(before)
            self.reload()

    def reload(self) -> None:
        assert self.engine.process is not None
        self.engine.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)


def start(site: Site, *flags: str, command: tuple[str, ...] = ("/server",)) -> None:
    """Run the server, and wait until it listens."""
    network = ("--network", NETWORK, "--ip", ADDRESS)
    site.jaula("run", "-d", "--name", NAME, *network, *flags, IMAGE, *command)
    deadline = time.monotonic() + 20
    while "listening" not in site.jaula("logs", NAME):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def move(source: Site, target: Site, *flags: str) -> str:
    """Move the server; return the output of the command."""
    return source.jaula("container", "migrate", *flags, "--to", target.target, NAME)


def move_interrupted(
    source: Site,
    target: Site,
    words: Sequence[str],
    line: str,
    interrupt: Callable[[], object],
    *,
    timeout: float = 60,
) -> str:
    """Move containers, and call ``interrupt`` at a line of the output; return the rest of it.

    ``words`` are those of the command. ``line`` is a regular expression. The move has to fail, in
    ``timeout`` seconds from then on.
    """
    process = subprocess.Popen(
        [PROJECT / "jaula", "container", "migrate", *words, "--to", target.target],
        env=source.engine.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for text in process.stdout:
        if re.search(line, text):
            interrupt()
            break
    rest, _ = process.communicate(timeout=timeout)
    assert process.returncode != 0, rest
    return rest


class Sites:
    """Two sites ``a`` and ``b``, and the namespace of a client."""

    def __init__(self, a: Site, b: Site, client: str) -> None:
        self.a, self.b, self.client = a, b, client

    def share_image(self) -> None:
        """Give ``b`` the image that ``a`` has."""
        archive = self.a.engine.request("GET", f"/images/{IMAGE}/get").body
        headers = {"Content-Type": "application/x-tar"}
        reply = self.b.engine.request("POST", "/images/load", archive, headers=headers)
        assert reply.status == 200, reply

    def never_ran_twice(self) -> bool:
        """Return whether no round of the server was printed at both sites."""
        rounds = [*self.a.ticks(NAME), *self.b.ticks(NAME)]
        return len(set(rounds)) == len(rounds)

    @contextlib.contextmanager
    def counting(self, address: str, port: int = 7000) -> Iterator[CountingClient]:
        ip("neigh", "flush", "dev", "cable", netns=self.client)  # the switch learns the port
        counting = CountingClient(self.client, address, port)
        try:
            yield counting
        finally:
            counting.kill()


class CountingClient:
    """A running ``counter_client.py``."""

    def __init__(self, netns: str, address: str, port: int = 7000) -> None:
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", netns, sys.executable, str(CLIENT), address, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", line

    def answers(self) -> int:
        """Return the number of answers, after the one for which the client waits."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("answers\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line.strip().isdecimal(), line
        return int(line)

    def finish(self) -> dict[str, Any]:
        """Return the client's result: answers, last, worst (milliseconds), failure."""
        output, _ = self._process.communicate("end\n", timeout=90)
        result: dict[str, Any] = json.loads(output)
        return result

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class LoadClient:
    """A running ``load_client.py`` as a context manager."""

    def __init__(
        self, netns: str, protocol: str, address: str, port: int, connections: int
    ) -> None:
        words = (protocol, address, str(port), str(connections))
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", netns, sys.executable, str(LOAD), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> LoadClient:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def finish(self) -> dict[str, Any]:
        """Return the client's result: answers, worst (milliseconds), failures."""
        output, _ = self._process.communicate(timeout=90)
        result: dict[str, Any] = json.loads(output)
        return result


@contextlib.contextmanager
def sites(
    directory: Path,
    index: int,
    peer: str = 'access = "all"',
    kind: type[PrivateEngine] = PrivateEngine,
) -> Iterator[Sites]:
    """Run two engines, ``a`` with the image. ``peer`` are lines of the policy about the other."""
    tag = f"jm{os.getpid() % 10000:04}{index}"
    switch, client = f"{tag}s", f"{tag}c"
    names = {"a": f"{tag}a", "b": f"{tag}b"}
    spaces = (switch, client, *names.values())
    engines: list[PrivateEngine] = []
    try:
        for space in spaces:
            ip("netns", "add", space)
            ip("link", "set", "lo", "up", netns=space)
        ip("link", "add", "br0", "type", "bridge", netns=switch)
        ip("link", "set", "br0", "up", netns=switch)
        for key, space in (*names.items(), ("c", client)):
            ip("link", "add", f"port{key}", "netns", switch, "type", "veth",
               "peer", "name", "cable", "netns", space)  # fmt: skip
            ip("link", "set", f"port{key}", "master", "br0", "up", netns=switch)
        ip("addr", "add", f"{SUBNET}.200/24", "dev", "cable", netns=client)
        ip("link", "set", "cable", "up", netns=client)
        authority = Authority(directory / "authority")
        made = []
        for number, (key, space) in enumerate(names.items(), 1):
            site = _start(directory, key, number, space, authority, index, peer, kind)
            engines.append(site.engine)
            made.append(site)
            _set_up(site)
        _await_link(made[0], made[1])
        programs = [
            images.file(name, build(directory, source).read_bytes(), 0o755)
            for name, source in (("server", SERVER), ("relay", RELAY))
        ]
        images.import_image(made[0].engine, IMAGE, [*images.busybox_entries(), *programs])
        yield Sites(made[0], made[1], client)
    finally:
        for engine in engines:
            if engine.process is not None and engine.process.poll() is None:
                engine.remove_containers()
                engine.stop()
            engine.delete_directories()
        for space in spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


def _start(
    directory: Path,
    key: str,
    number: int,
    space: str,
    authority: Authority,
    index: int,
    lines: str,
    kind: type[PrivateEngine],
) -> Site:
    certificate = authority.sign(
        f"engine-{key}", usage="clientAuth,serverAuth", addresses=(f"{SUBNET}.{number}",)
    )
    file = directory / f"policy-{key}.toml"
    peer = "b" if key == "a" else "a"
    file.write_text(f'[certificate.engine-{peer}]\n{lines}\n[user.root]\naccess = "all"\n')
    engine = kind(
        200 + 2 * index + number,
        extra_flags=(
            *("-H", "tcp://0.0.0.0:2376", "--tlsverify"),
            *("--tlscacert", str(authority.file)),
            *("--tlscert", str(certificate / "cert.pem")),
            *("--tlskey", str(certificate / "key.pem"), "--policy", str(file)),
        ),
        netns=space,
    )
    engine.start()
    return Site(key, number, engine, file)


def _set_up(site: Site) -> None:
    bridge = f"jm{site.name}lan"
    site.jaula(
        *("network", "create", "--subnet", f"{SUBNET}.0/24", "--gateway", site.address),
        *("-o", f"com.docker.network.bridge.name={bridge}", NETWORK),
    )
    ip("link", "set", "cable", "master", bridge, "up", netns=site.netns)


def _await_link(source: Site, target: Site) -> None:
    program = f"import socket; socket.create_connection(('{target.address}', 2376), 1)"
    command = ["nsenter", f"--net=/run/netns/{source.netns}", sys.executable, "-c", program]
    for _ in range(50):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"{source.name} does not reach {target.name}")


def build(directory: Path, source: Path) -> Path:
    """Return the path of a static program."""
    path = directory / source.stem
    subprocess.run(["gcc", "-O1", "-static", "-pthread", "-o", path, source], check=True)
    return path
