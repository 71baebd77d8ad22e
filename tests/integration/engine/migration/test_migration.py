"""Live migration between two engines: a client's connection goes on, and nothing runs twice."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from harness import containers
from harness.engine import PROJECT
from harness.migration import ADDRESS, IMAGE, NAME, NETWORK, Sites, ip, move, sites, start
from jaula.features.checkpoint.runtime.criu import Criu

pytestmark = [pytest.mark.criu, pytest.mark.needs("gcc", "ip", "openssl", "nsenter")]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("sites"), 0) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_runs(two: Sites) -> Iterator[None]:
    yield
    for site in (two.a, two.b):
        site.engine.cli("jaula", "rm", "-f", "-v", NAME)
        site.engine.cli("jaula", "volume", "rm", "data")


def test_an_established_connection_goes_on_at_the_target(two: Sites) -> None:
    start(two.a)
    with two.counting(ADDRESS) as client:
        id_there = move(two.a, two.b).strip()
        result = client.finish()
    assert result["failure"] == ""
    assert result["answers"] == result["last"]
    assert two.b.runs(NAME)
    document = two.b.state(NAME)
    assert document is not None
    assert document["Id"] == id_there
    assert document["Config"]["Image"] == IMAGE
    state = two.a.state(NAME)
    assert state is not None
    assert (state["State"]["Status"], state["State"]["ExitCode"]) == ("exited", 137)
    assert two.never_ran_twice()


def test_memory_is_copied_in_rounds_before_the_container_stops(two: Sites) -> None:
    """A kernel that does not track written pages says so, and there are no rounds."""
    with Criu() as service:
        tracks = service.tracks_memory()
    start(two.a)
    words = ("jaula", "container", "migrate")
    with two.counting(ADDRESS) as client:
        done = two.a.engine.cli(*words, "--pre-copy", "3", "--to", two.b.target, NAME)
        result = client.finish()
    assert done.returncode == 0, done.stderr
    assert ("round 1, a stop now would be for about" in done.stderr) is tracks
    assert ("this kernel does not track written pages" in done.stderr) is not tracks
    assert result["failure"] == ""
    assert result["answers"] == result["last"]
    assert two.b.runs(NAME)
    assert two.never_ran_twice()


def test_a_number_of_rounds_is_checked(two: Sites) -> None:
    start(two.a)
    words = ("container", "migrate", "--pre-copy", "17", "--to", two.b.target, NAME)
    assert "0 to 16 rounds" in two.a.refused(*words)
    assert two.a.runs(NAME)


def test_the_container_is_as_confined_as_before(two: Sites) -> None:
    start(two.a, "--cap-drop", "ALL", "--read-only", "--tmpfs", "/scratch")
    before = containers.status(containers.pid(two.a.engine, NAME))
    move(two.a, two.b, "--rm")
    after = containers.status(containers.pid(two.b.engine, NAME))
    names = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Threads")
    assert [before[name] for name in names] == [after[name] for name in names]
    assert two.a.state(NAME) is None
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{two.b.netns}", PROJECT / "jaula", "verify", NAME],
        env=two.b.engine.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_files_of_root_and_volumes_move(two: Sites) -> None:
    script = (
        "echo first > /root/kept; ln /root/kept /root/link; ln -s kept /root/symbolic;"
        " rm /etc/group; mkdir -m 700 /root/dir; chown 7:8 /root/dir; mkfifo /root/fifo;"
        " echo volume > /data/file; echo 'quoted' > '/data/a b\xe9'; echo a > /data/going;"
        " exec 9>>/data/open; i=0; while true; do i=$((i+1)); echo $i >&9; echo $i > /root/count;"
        " [ $i = 12 ] && rm -f /data/going && echo b > /data/later; sleep 0.05; done"
    )
    two.a.jaula(
        *("run", "-d", "--name", NAME, "--network", NETWORK, "-v", "data:/data"),
        *(IMAGE, "sh", "-c", script),
    )
    time.sleep(0.4)
    move(two.a, two.b)
    read = (
        "cat /root/link /root/symbolic /data/file '/data/a b\xe9'; test -p /root/fifo && echo fifo;"
        " test -e /etc/group || echo gone"
    )
    text = two.b.jaula("exec", NAME, "sh", "-c", read)
    assert text == "first\nfirst\nvolume\nquoted\nfifo\ngone\n"
    listing = two.b.jaula("exec", NAME, "ls", "-ln", "/root")
    assert re.search(r"^drwx------ +\d+ +7 +8 .* dir$", listing, re.MULTILINE)
    time.sleep(1)
    numbers = [int(line) for line in two.b.jaula("exec", NAME, "cat", "/data/open").split()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 12
    names = two.b.jaula("exec", NAME, "ls", "/data").split()
    assert {"file", "later", "open"} <= set(names)
    assert "going" not in names


def test_a_new_address_closes_connections(two: Sites) -> None:
    two.share_image()
    start(two.a)
    two.b.jaula("run", "-d", "--name", "other", "--network", NETWORK, "--ip", ADDRESS, IMAGE,
                "sleep", "600")  # fmt: skip
    try:
        text = two.a.refused("container", "migrate", NAME, "--to", two.b.target, "--keep-address")
        assert "10.77.3.50 is in use at the target" in text
        assert two.a.runs(NAME)
        move(two.a, two.b)
        address = containers.address(two.b.engine, NAME, NETWORK)
        assert address != ADDRESS
        with two.counting(address) as client:
            assert client.finish()["failure"] == ""
    finally:
        two.b.jaula("rm", "-f", "other")


def test_a_dry_run_moves_nothing(two: Sites) -> None:
    start(two.a)
    text = two.a.jaula("container", "migrate", NAME, "--to", two.b.target, "--dry-run")
    rows = dict(re.findall(r"^(?:ok|NO) +(\S+) +(.*)$", text, re.MULTILINE))
    assert {"container", "CRIU", "memory", "image", "network", "addresses"} <= set(rows)
    assert re.fullmatch(r"about 0\.\d s \(.* of memory at 100MiB/s, assumed\)", rows["pause"])
    assert two.a.runs(NAME)
    assert two.b.state(NAME) is None


def test_refusals_name_the_way_out(two: Sites) -> None:
    two.share_image()
    start(two.a)
    two.b.jaula("create", "--name", NAME, IMAGE, "true")
    for flags, words in (
        ((), f"name: {NAME} is in use at the target (remove the container {NAME} at the target"),
        (("--volumes", "shared"), "is in use at the target"),
    ):
        text = two.a.refused("container", "migrate", NAME, "--to", two.b.target, *flags)
        assert words in text
    two.b.jaula("rm", NAME)
    exec_words = ("exec", "-d", NAME, "sleep", "600")
    two.a.jaula(*exec_words)
    text = two.a.refused("container", "migrate", NAME, "--to", two.b.target)
    assert "exec'd processes" in text
    assert "--end-execs" in text
    move(two.a, two.b, "--end-execs")
    assert two.b.runs(NAME)
    text = two.a.refused("container", "migrate", "--resume", NAME)
    assert "no migration of container web is undecided" in text
    text = two.b.refused("container", "migrate", NAME, "--to", "tcp://10.77.3.9:1")
    assert "cannot connect to the engine at 10.77.3.9:1" in text
    text = two.b.refused("container", "migrate", NAME, "--to", "http://x")
    assert "is not an address" in text


def test_a_volume_that_the_target_has_is_refused_before_the_container_stops(two: Sites) -> None:
    two.share_image()
    two.a.jaula("run", "-d", "--name", NAME, "-v", "data:/data", IMAGE, "sleep", "600")
    two.b.jaula("volume", "create", "data")
    words = ("container", "migrate", NAME, "--to", two.b.target)
    text = two.a.refused(*words)
    assert "volume: data exists at the target (remove it there (jaula volume rm data)" in text
    done = two.a.engine.cli("jaula", *words, "--dry-run")
    assert done.returncode == 1
    assert re.search(r"^NO +volume +data exists at the target$", done.stdout, re.MULTILINE)
    assert two.a.runs(NAME)
    assert two.b.state(NAME) is None


def test_a_full_disk_at_the_target_is_named_and_the_container_runs_on(two: Sites) -> None:
    two.share_image()
    two.b.jaula("run", "-d", "--name", "other", "--network", NETWORK, IMAGE, "sleep", "600")
    start(two.a)
    engine = two.b.engine
    store = engine.root / "lib/checkpoints"
    store.mkdir(mode=0o700, exist_ok=True)
    engine.stop()  # the next one has the mount in its namespace; the network stays for "other"
    options = "size=128k,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(store)], check=True)
    try:
        engine.start()
        with two.counting(ADDRESS) as client:
            text = two.a.refused("container", "migrate", NAME, "--to", two.b.target)
            assert client.finish()["failure"] == ""
        assert "No space left on device (free some space and try again)" in text
        assert two.a.runs(NAME)
        assert two.b.state(NAME) is None
        assert list(store.glob("*/*")) == []
    finally:
        engine.stop()
        subprocess.run(["umount", "-l", str(store)], check=True)
        engine.start()
        two.b.jaula("rm", "-f", "other")


def test_a_container_of_the_engine_before_moves(two: Sites) -> None:
    """Its shim is in the mount namespace of that engine."""
    start(two.a)
    two.a.engine.stop()
    two.a.engine.start()
    with two.counting(ADDRESS) as client:
        move(two.a, two.b)
        assert client.finish()["failure"] == ""
    assert two.b.runs(NAME)
    assert two.never_ran_twice()


def test_a_network_that_cannot_be_cut_off_is_refused(two: Sites) -> None:
    ip("link", "add", "cable0", "type", "veth", "peer", "name", "cable1", netns=two.a.netns)
    two.a.jaula("network", "create", "-d", "macvlan", "-o", "parent=cable0", "direct")
    try:
        two.a.jaula("run", "-d", "--name", NAME, "--network", "direct", IMAGE, "sleep", "600")
        text = two.a.refused("container", "migrate", NAME, "--to", two.b.target)
        assert "its network direct (macvlan) cannot be cut off" in text
        assert two.a.runs(NAME)
    finally:
        two.a.jaula("rm", "-f", NAME)
        two.a.jaula("network", "rm", "direct")
        ip("link", "del", "cable0", netns=two.a.netns)


def test_a_failed_restore_leaves_the_container_running(two: Sites) -> None:
    start(two.a, "-p", "9999:7000")
    with two.counting(ADDRESS) as client:
        move(two.a, two.b, "--rm")
        two.a.jaula("run", "-d", "--name", "other", "-p", "9999:7000", "--network", NETWORK, IMAGE,
                    "sleep", "600")  # fmt: skip
        try:
            text = two.b.refused("container", "migrate", NAME, "--to", two.a.target)
            result = client.finish()
        finally:
            two.a.jaula("rm", "-f", "other")
    assert "container web was not moved, and runs on here: driver failed programming" in text
    assert result["failure"] == ""
    assert result["answers"] == result["last"]
    assert two.b.runs(NAME)
    assert two.a.state(NAME) is None


def test_an_interrupted_command_leaves_the_container_running(two: Sites) -> None:
    start(two.a, "--memory", "400m", command=("/server", "200"))
    with two.counting(ADDRESS) as client:
        process = subprocess.Popen(
            [PROJECT / "jaula", "container", "migrate", NAME, "--to", two.b.target],
            env=two.a.engine.environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        while "Stopped" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(30)
        containers.eventually(lambda: two.b.state(NAME) is None, "the target has undone it")
        containers.eventually(lambda: not two.a.frozen(NAME), "the container runs on")
        result = client.finish()
    assert result["failure"] == ""
    assert two.a.runs(NAME)
    assert two.never_ran_twice()


def test_moves_to_and_fro_leave_nothing(two: Sites) -> None:
    start(two.a)
    with two.counting(ADDRESS) as client:
        for number in range(10):
            move(two.a, two.b, "--rm")
            move(two.b, two.a, "--rm")
            if number == 0:
                before = [site.descriptors() for site in (two.a, two.b)]
        result = client.finish()
    assert result["failure"] == ""
    assert result["answers"] == result["last"]
    for site, count in zip((two.a, two.b), before, strict=True):
        containers.eventually(lambda site=site, most=count: site.descriptors() <= most, "closed")  # type: ignore[misc]
    two.a.jaula("rm", "-f", NAME)
    for site in (two.a, two.b):
        containers.eventually(lambda site=site: not site.leftovers(), "nothing is left")  # type: ignore[misc]
        assert site.jaula("system", "check") == "No problems found.\n"


def test_a_peer_without_the_right_is_refused(two: Sites) -> None:
    start(two.a)
    with two.b.policy('access = "run"'):
        text = two.a.refused("container", "migrate", NAME, "--to", two.b.target)
        assert "may not move containers to this engine" in text
        assert "migrate = true" in text
        assert two.a.runs(NAME)
    with two.b.policy('access = "run"\nothers = "control"\nmigrate = true'):
        move(two.a, two.b)
    assert two.b.runs(NAME)
