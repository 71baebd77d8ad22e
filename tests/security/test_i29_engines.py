"""Two engines on one host never end, change or remove anything of each other (I29).

Whatever their settings are: the same names, the same ids, a parent or a bridge of the other one,
and an engine that was killed. An engine makes again what another program took from it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine
from jaula.state.claims import DIRECTORY

Engines = Callable[..., PrivateEngine]

SHARED = {
    "bridge": ("--bridge",),
    "cgroup parent": ("--cgroup-parent",),
    "run directory": ("--run",),
    "everything": ("--bridge", "--cgroup-parent", "--run"),
}


@pytest.fixture
def first(new_engine: Engines) -> PrivateEngine:
    engine = new_engine()
    load_image(engine, "busybox")
    return engine


@pytest.fixture
def kept(first: PrivateEngine) -> Iterator[str]:
    """Yield a container of the first engine, which must run at the end as it did before."""
    with containers.running(first, "busybox") as name:
        yield name


def flags_of(engine: PrivateEngine, *names: str) -> tuple[str, ...]:
    """Return the flags that give another engine the names of this one."""
    values = {
        "--bridge": engine.bridge,
        "--cgroup-parent": engine.cgroup_parent,
        "--run": str(engine.run),
    }
    return tuple(word for name in names for word in (name, values[name]))


def host_objects(engine: PrivateEngine) -> dict[str, object]:
    """Return what the first engine has on the host, as the kernel tells it."""
    ports = Path("/sys/class/net") / engine.bridge / "brif"
    link = json.loads(output("ip", "-j", "-d", "address", "show", "dev", engine.bridge))[0]
    return {
        "bridge": (link["ifindex"], link["ifalias"], [row["local"] for row in link["addr_info"]]),
        "ports": len(list(ports.iterdir())),
        "tables": [
            line for line in output("nft", "list", "tables").splitlines() if engine.bridge in line
        ],
        "cgroups": sorted(str(path) for path in cgroup_parents(engine)),
        "run": sorted(path.name for path in (engine.run / "containers").iterdir()),
    }


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def cgroup_parents(engine: PrivateEngine) -> list[Path]:
    root = Path("/sys/fs/cgroup")
    trees = {(tree / engine.cgroup_parent).resolve() for tree in (root, *root.glob("*/"))}
    return sorted(tree for tree in trees if tree.is_dir())


def refusal(engine: PrivateEngine) -> str:
    """Return the error of an engine that does not start."""
    before = engine.log.stat().st_size if engine.log.exists() else 0
    with pytest.raises(AssertionError, match="the engine ended at its start"):
        engine.start()
    engine.process = None
    lines = [line for line in engine.log.read_text()[before:].splitlines() if line]
    assert len(lines) == 1, lines
    return lines[0]


def gateway_of(engine: PrivateEngine, name: str) -> str:
    return str(containers.inspect(engine, name)["NetworkSettings"]["Networks"]["bridge"]["Gateway"])


def reaches_its_gateway(engine: PrivateEngine, name: str) -> bool:
    gateway = gateway_of(engine, name)
    return engine.cli("jaula", "exec", name, "ping", "-c1", "-W5", gateway).returncode == 0


def settled(engine: PrivateEngine) -> None:
    """Wait until the pool of sandboxes is full, so that the number of ports stays."""
    ports = Path("/sys/class/net") / engine.bridge / "brif"
    containers.eventually(lambda: len(list(ports.iterdir())) >= 5, "the pool is full")


@pytest.mark.parametrize("shared", SHARED)
def test_a_name_of_a_running_engine_is_refused(
    new_engine: Engines, first: PrivateEngine, kept: str, shared: str
) -> None:
    settled(first)
    before, process = host_objects(first), containers.pid(first, kept)
    second = new_engine(*flags_of(first, *SHARED[shared]), start=False)
    error = refusal(second)
    assert all(f"{flag} " in error for flag in SHARED[shared]), error
    assert str(first.root) in error
    assert host_objects(first) == before
    assert containers.pid(first, kept) == process
    assert reaches_its_gateway(first, kept)
    assert containers.run(first, "busybox", "echo", "after") == "after\n"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_names_of_an_ended_engine_are_kept_for_its_containers(
    new_engine: Engines, first: PrivateEngine, kept: str, end: str
) -> None:
    process = containers.pid(first, kept)
    getattr(first, end)()
    second = new_engine(*flags_of(first, "--bridge", "--cgroup-parent"), start=False)
    assert "--bridge" in refusal(second)
    assert Path(f"/proc/{process}").exists()
    first.start()
    assert containers.pid(first, kept) == process
    assert reaches_its_gateway(first, kept)


def test_a_crash_without_containers_releases_the_names(
    new_engine: Engines, first: PrivateEngine
) -> None:
    first.kill()
    second = new_engine(*flags_of(first, "--bridge", "--cgroup-parent"))
    load_image(second, "busybox")
    assert containers.run(second, "busybox", "echo", "mine") == "mine\n"
    assert "--bridge" in refusal(first)
    second.stop()
    first.start()
    assert containers.run(first, "busybox", "echo", "again") == "again\n"
    first.stop()
    second.start()
    second.stop()
    first.start()
    second.start = lambda **_: None  # type: ignore[method-assign]  # ended: nothing to discard


def test_the_end_of_an_engine_leaves_the_other_as_it_was(
    new_engine: Engines, first: PrivateEngine, kept: str
) -> None:
    settled(first)
    second = new_engine()
    before = host_objects(first)
    for end in ("stop", "kill"):
        getattr(second, end)()
        assert host_objects(first) == before
        second.start()
    assert host_objects(first) == before
    assert reaches_its_gateway(first, kept)


def test_a_container_below_the_parent_of_another_engine_lives(
    new_engine: Engines, first: PrivateEngine
) -> None:
    second = new_engine()
    load_image(second, "busybox")
    parent = ("--cgroup-parent", f"/{first.cgroup_parent}")
    with containers.running(second, "busybox", flags=parent) as name:
        process = containers.pid(second, name)
        for end in ("stop", "kill"):
            getattr(first, end)()
            first.start()
            assert Path(f"/proc/{process}").exists()
        done = first.cli("jaula", "system", "check", "--repair")
        assert (done.returncode, "killed" in done.stdout) == (0, False), done
        assert containers.pid(second, name) == process


def test_a_foreign_process_below_the_parent_is_left_alone(first: PrivateEngine, kept: str) -> None:
    ident = secrets.token_hex(32)
    with subprocess.Popen(["sleep", "600"]) as program:
        try:
            for parent in cgroup_parents(first):
                (parent / ident).mkdir()
                (parent / ident / "cgroup.procs").write_text(str(program.pid))
            first.kill()
            first.start()
            assert program.poll() is None
            assert f"{ident} is not one of this engine" in first.log_tail()
        finally:
            program.kill()
            program.wait()
            for parent in cgroup_parents(first):
                if (parent / ident).is_dir():
                    (parent / ident).rmdir()


def test_a_network_cannot_take_the_bridge_of_another_engine(
    new_engine: Engines, first: PrivateEngine, kept: str
) -> None:
    settled(first)
    second = new_engine()
    before = host_objects(first)
    option = f"com.docker.network.bridge.name={first.bridge}"
    done = second.cli("docker", "network", "create", "-o", option, "taken")
    assert done.returncode != 0
    assert f"({first.bridge})" in done.stderr
    assert second.cli("docker", "network", "rm", "taken").returncode != 0
    second.stop()
    second.start()
    assert host_objects(first) == before
    assert reaches_its_gateway(first, kept)


def test_a_network_of_each_engine_cannot_have_one_bridge(
    new_engine: Engines, first: PrivateEngine
) -> None:
    second, bridge = new_engine(), f"n{secrets.token_hex(4)}"
    option = ("-o", f"com.docker.network.bridge.name={bridge}")
    assert first.cli("docker", "network", "create", *option, "mine").returncode == 0
    with containers.running(first, "busybox", flags=("--network", "mine")):
        assert second.cli("docker", "network", "create", *option, "theirs").returncode != 0
        second.stop()
        assert bridge in output("nft", "list", "tables")
        assert Path("/sys/class/net", bridge).exists()
        second.start()
    assert first.cli("docker", "network", "rm", "mine").returncode == 0
    assert second.cli("docker", "network", "create", *option, "theirs").returncode == 0
    assert second.cli("docker", "network", "rm", "theirs").returncode == 0


def test_a_parent_interface_belongs_to_the_engine_that_created_it(
    new_engine: Engines, first: PrivateEngine
) -> None:
    """The link has the mark of the first engine, as a VLAN link that it created has."""
    second, name = new_engine(), f"p{secrets.token_hex(4)}"
    identity = first.request("GET", "/info").json()["ID"]
    veth = ("type", "veth", "peer", "name", f"{name}o")
    subprocess.run(["ip", "link", "add", name, *veth], check=True)
    try:
        mark = ("alias", f"jaula engine {identity}")
        subprocess.run(["ip", "link", "set", name, *mark], check=True)
        create = ("network", "create", "-d", "macvlan", "-o", f"parent={name}")
        done = second.cli("docker", *create, "theirs")
        assert "belongs to another engine" in done.stderr
        done = first.cli("docker", *create, "mine")
        assert done.returncode == 0, done.stderr
        assert first.cli("docker", "network", "rm", "mine").returncode == 0
        assert Path("/sys/class/net", name).exists()
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0, 1, 30000, 65535])
def test_containers_of_two_engines_have_different_ids(
    new_engine: Engines, first: PrivateEngine, shift: int
) -> None:
    start = 2_000_000_000 + first.index * 5_000_000 + shift
    second = new_engine("--subid-start", str(start), start=False)
    second.start()
    load_image(second, "busybox")
    ranges = []
    for engine in (first, second, first, second):
        with containers.running(engine, "busybox") as name:
            process = containers.pid(engine, name)
            ranges += [int(Path(f"/proc/{process}/uid_map").read_text().split()[1])]
            second.kill()  # its lock goes, its containers stay
            second.start()
            others = [int(each) for each in held_ids()]
            near = [each for each in others if abs(each - ranges[-1]) < 65536]
            assert near == [ranges[-1]]


def held_ids() -> list[str]:
    return [path.name for path in DIRECTORY.glob("*/ids/*")]


# -- what was taken ------------------------------------------------------------------------------


def repairs(engine: PrivateEngine, since: float, kind: str) -> list[str]:
    rows = containers.events(engine, since, type="daemon", event="repair")
    attributes = [row["Actor"]["Attributes"] for row in rows]
    return [each["object"] for each in attributes if each["kind"] == kind]


def test_a_deleted_bridge_is_made_again(first: PrivateEngine, kept: str) -> None:
    settled(first)
    since, before = time.time() - 1, host_objects(first)
    subprocess.run(["ip", "link", "del", first.bridge], check=True)
    assert reachable_after_a_run(first, kept)
    after = host_objects(first)
    assert (after["bridge"][1:], after["tables"]) == (before["bridge"][1:], before["tables"])  # type: ignore[index]
    assert repairs(first, since, "bridge") == [first.bridge]
    assert f"another program removed the bridge {first.bridge}" in first.log_tail()
    assert first.bridge in str(first.request("GET", "/info").json()["Warnings"])


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_bridge_that_was_deleted_while_no_engine_ran_is_made_again(
    first: PrivateEngine, kept: str, end: str
) -> None:
    getattr(first, end)()
    subprocess.run(["ip", "link", "del", first.bridge], check=True)
    first.start()
    assert reaches_its_gateway(first, kept)


def test_a_deleted_bridge_of_a_network_is_made_again(first: PrivateEngine) -> None:
    network, since = containers.unique("n"), time.time() - 1
    create = ("network", "create", "--ipv6", "--subnet", f"10.198.{first.index}.0/24", network)
    assert first.cli("docker", *create).returncode == 0
    identity = first.request("GET", f"/networks/{network}").json()["Id"]
    bridge, place = f"br-{identity[:12]}", ("--network", network)
    with containers.running(first, "busybox", flags=(*place, "--network-alias", "far")) as name:
        before = json.loads(output("ip", "-j", "address", "show", "dev", bridge))[0]["addr_info"]
        address = containers.address(first, name, network)
        subprocess.run(["ip", "link", "del", bridge], check=True)
        for target in (address, "far", "-6 far"):
            done = containers.run(
                first, "busybox", "ping", "-c1", "-W5", *target.split(), flags=place
            )
            assert "1 packets received" in done
        after = json.loads(output("ip", "-j", "address", "show", "dev", bridge))[0]["addr_info"]
        assert {row["local"] for row in before if row["scope"] == "global"} == {
            row["local"] for row in after if row["scope"] == "global"
        }
    assert repairs(first, since, "bridge") == [bridge]
    assert first.cli("docker", "network", "rm", network).returncode == 0


def reachable_after_a_run(engine: PrivateEngine, name: str) -> bool:
    gateway = gateway_of(engine, name)
    done = containers.run(engine, "busybox", "ping", "-c1", "-W5", gateway)
    return "1 packets received" in done and reaches_its_gateway(engine, name)


@pytest.mark.parametrize("command", ["flush ruleset of the engine", "table by table"])
def test_a_deleted_table_is_made_again(first: PrivateEngine, kept: str, command: str) -> None:
    settled(first)
    since, before = time.time() - 1, host_objects(first)
    tables = before["tables"]
    assert isinstance(tables, list)
    text = "\n".join(f"delete {line}" for line in tables)
    if command == "table by table":
        for line in text.splitlines():
            subprocess.run(["nft", line], check=False)
    else:
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    containers.eventually(lambda: host_objects(first)["tables"] == tables, "the tables are back")
    containers.eventually(lambda: bool(repairs(first, since, "firewall")), "it says so")
    assert reachable_after_a_run(first, kept)


def test_a_removed_cgroup_parent_is_made_again(new_engine: Engines) -> None:
    engine = new_engine("--spare-inits", "0", start=False)
    engine.start()
    load_image(engine, "busybox")
    since = time.time() - 1
    containers.eventually(lambda: bool(cgroup_parents(engine)), "the parent is there")
    places = cgroup_parents(engine)
    time.sleep(1.5)  # until it is watched
    for place in places:
        place.rmdir()
    containers.eventually(lambda: cgroup_parents(engine) == places, "the parent is back")
    assert containers.run(engine, "busybox", "echo", "runs") == "runs\n"
    assert repairs(engine, since, "cgroup parent") == [f"/{engine.cgroup_parent}"]


def remove_run_directory(engine: PrivateEngine) -> None:
    """Remove it, also while the engine writes there, and wait until the engine serves again."""
    inode = engine.run.stat().st_ino
    while engine.run.exists() and engine.run.stat().st_ino == inode:
        shutil.rmtree(engine.run, ignore_errors=True)
    containers.eventually(engine.socket.exists, "the socket is back")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_removed_run_directory_is_made_again(
    new_engine: Engines, first: PrivateEngine, kept: str, end: str
) -> None:
    """Also the sockets of its shims: the next engine takes over what runs."""
    since, process = time.time() - 1, containers.pid(first, kept)
    remove_run_directory(first)
    assert first.socket.stat().st_mode & 0o777 == 0o600
    assert containers.pid(first, kept) == process
    assert containers.run(first, "busybox", "echo", "runs") == "runs\n"
    assert containers.run(first, "busybox", "echo", "runs", flags=("-p", "80")) == "runs\n"
    assert first.cli("jaula", "exec", kept, "echo", "here").stdout == "here\n"
    containers.eventually(
        lambda: repairs(first, since, "run directory") == [str(first.run)], "it says so"
    )
    assert kept not in first.log_tail()
    getattr(first, end)()
    second = new_engine(*flags_of(first, "--bridge"), start=False)
    assert "--bridge" in refusal(second)
    first.start()
    assert containers.pid(first, kept) == process
    assert first.cli("jaula", "exec", kept, "echo", "here").stdout == "here\n"
    assert reaches_its_gateway(first, kept)
    assert first.cli("jaula", "logs", kept).returncode == 0
    assert first.cli("jaula", "stop", "-t", "0", kept).returncode == 0
    assert containers.inspect(first, kept)["State"]["ExitCode"] == 137
    assert first.cli("jaula", "start", kept).returncode == 0


def test_a_container_whose_shim_does_not_answer_is_named(first: PrivateEngine, kept: str) -> None:
    since, shim = time.time() - 1, containers.shim(containers.pid(first, kept))
    os.kill(shim, signal.SIGSTOP)
    try:
        remove_run_directory(first)
        containers.eventually(
            lambda: repairs(first, since, "run directory") == [str(first.run)], "it says so"
        )
    finally:
        os.kill(shim, signal.SIGCONT)
    assert f"Restart {kept}: without the files that were there" in first.log_tail()
    assert first.cli("jaula", "restart", "-t", "0", kept).returncode == 0
    first.stop()
    first.start()
    assert containers.inspect(first, kept)["State"]["Running"]


def remove_without_engine(engine: PrivateEngine) -> None:
    """Remove the run directory of an engine that was killed."""
    shutil.rmtree(engine.run)


def test_containers_are_found_after_the_removal_of_the_run_directory(
    new_engine: Engines, first: PrivateEngine, kept: str
) -> None:
    """Without an engine: the next one asks the shims to listen again."""
    process = containers.pid(first, kept)
    with containers.running(first, "busybox", "sh", "-c", "sleep 2; exit 7") as ending:
        first.kill()
        remove_without_engine(first)
        containers.eventually(
            lambda: list(first.run.glob("containers/*/exit.json")), "its shim writes the exit"
        )
        first.start()
        assert containers.inspect(first, ending)["State"]["ExitCode"] == 7
        assert containers.pid(first, kept) == process
        assert "1 of 1 containers were found again" in first.log_tail()
        assert first.cli("jaula", "exec", kept, "echo", "here").stdout == "here\n"
        assert reaches_its_gateway(first, kept)
        first.kill()
        first.start()
        assert containers.pid(first, kept) == process
        assert first.cli("jaula", "restart", "-t", "0", kept).returncode == 0
        modes = {
            each: each.stat().st_mode & 0o777 for each in (first.run, first.run / "containers")
        }
        assert list(modes.values()) == [0o711, 0o700], modes


def test_a_container_whose_shim_makes_no_socket_is_reported(first: PrivateEngine) -> None:
    with containers.running(first, "busybox") as name:
        process = containers.pid(first, name)
        shim = containers.shim(process)
        first.kill()
        remove_without_engine(first)
        os.kill(shim, signal.SIGSTOP)
        first.start()
        state = containers.inspect(first, name)["State"]
        assert (state["Running"], state["ExitCode"]) == (False, 255)
        assert "removed the run directory" in state["Error"]
        for each in (shim, process):
            containers.eventually(lambda: not Path(f"/proc/{each}").exists(), "it is gone")  # noqa: B023
        assert first.cli("jaula", "start", name).returncode == 0


def test_a_removed_socket_is_made_again(first: PrivateEngine) -> None:
    first.socket.unlink()
    containers.eventually(first.socket.exists, "the socket is back")
    assert containers.run(first, "busybox", "echo", "runs") == "runs\n"


@pytest.mark.parametrize("text", ["", "{", '{"id": 1}'])
def test_a_damaged_claim_is_made_again(
    new_engine: Engines, first: PrivateEngine, kept: str, text: str
) -> None:
    since = time.time() - 1
    place = DIRECTORY / first.request("GET", "/info").json()["ID"]
    whole = (place / "claim.json").read_bytes()
    (place / "claim.json").write_text(text)
    second = new_engine(*flags_of(first, "--bridge"), start=False)
    assert "--bridge" in refusal(second)
    assert (place / "claim.json").read_bytes() == whole
    assert repairs(first, since, "claim") == [str(place)]
    assert reaches_its_gateway(first, kept)


def test_of_two_engines_that_start_at_once_one_is_refused(new_engine: Engines) -> None:
    first = new_engine(start=False)
    second = new_engine(*flags_of(first, "--bridge"), start=False)

    def start(engine: PrivateEngine) -> bool:
        try:
            engine.start()
        except AssertionError:
            engine.process = None
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        started = list(pool.map(start, (first, second)))
    assert sorted(started) == [False, True]
    winner, loser = (first, second) if started[0] else (second, first)
    assert "--bridge" in loser.log.read_text()
    load_image(winner, "busybox")
    assert containers.run(winner, "busybox", "echo", "mine") == "mine\n"
    winner.discard()  # before the check of the other one, whose bridge it may have


def test_a_removed_claim_is_made_again(
    new_engine: Engines, first: PrivateEngine, kept: str
) -> None:
    place = DIRECTORY / first.request("GET", "/info").json()["ID"]
    shutil.rmtree(place)
    containers.eventually((place / "claim.json").exists, "the claim is back")
    assert os.listdir(place / "ids")
    second = new_engine(*flags_of(first, "--bridge"), start=False)
    assert "--bridge" in refusal(second)
    assert reaches_its_gateway(first, kept)


# -- directories that cannot be written ----------------------------------------------------------


def place_of(engine: PrivateEngine, what: str) -> Path:
    return {"claims": DIRECTORY, "run": engine.run}[what]


@contextlib.contextmanager
def read_only(pid: int, place: Path) -> Iterator[None]:
    """Make a directory read-only in the mount namespace of a process, and nowhere else."""

    def run(*command: str) -> None:
        subprocess.run(["nsenter", "-t", str(pid), "-m", *command], check=True)

    run("mount", "--bind", str(place), str(place))
    try:
        run("mount", "-o", "remount,bind,ro", str(place))
        yield
    finally:
        run("umount", str(place))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("claims", "cannot claim the names of this engine in /run/jaula-engines: Read-only"),
        ("run", "cannot create the engine's directories: Read-only"),
    ],
)
def test_an_engine_with_a_read_only_directory_does_not_start(
    new_engine: Engines, what: str, message: str
) -> None:
    engine = new_engine(start=False)
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        engine.mntns = f"/proc/{holder.pid}/ns/mnt"
        with read_only(holder.pid, place_of(engine, what)):
            assert message in refusal(engine)
        holder.communicate()
    engine.mntns = ""
    engine.start()


@pytest.mark.parametrize("what", ["claims", "run"])
def test_containers_end_while_a_directory_is_read_only(new_engine: Engines, what: str) -> None:
    """A start is refused, and all that runs is as reachable as before."""
    engine = new_engine("--sandbox-pool", "0")
    load_image(engine, "busybox")
    with (
        containers.running(engine, "busybox") as name,
        containers.running(engine, "busybox") as gone,
    ):
        script = "while [ ! -e /end ]; do sleep 0.1; done; exit 7"
        ends = engine.cli("jaula", "run", "-d", "busybox", "sh", "-c", script).stdout.strip()
        assert engine.process is not None
        with read_only(engine.process.pid, place_of(engine, what)):
            assert engine.cli("jaula", "exec", name, "echo", "here").stdout == "here\n"
            assert engine.cli("jaula", "logs", name).returncode == 0
            refused = engine.cli("jaula", "run", "--rm", "busybox", "true")
            assert refused.returncode == 125
            assert "Read-only file system" in refused.stderr
            assert engine.cli("jaula", "exec", ends, "touch", "/end").returncode == 0
            assert engine.cli("jaula", "wait", ends).stdout == "7\n"
            assert not containers.inspect(engine, ends)["State"]["Error"]
            assert engine.cli("jaula", "stop", "-t", "0", name).returncode == 0
            state = containers.inspect(engine, name)["State"]
            assert (state["Status"], state["ExitCode"], state["Error"]) == ("exited", 137, "")
            assert engine.cli("jaula", "rm", "-f", gone).returncode == 0
        assert engine.cli("jaula", "start", name).returncode == 0
        assert containers.run(engine, "busybox", "echo", "runs") == "runs\n"
        engine.kill()
        engine.start()
        assert containers.inspect(engine, name)["State"]["Running"]
        held = {path.name for path in (DIRECTORY / identity_of(engine) / "ids").iterdir()}
        process = containers.pid(engine, name)
        assert Path(f"/proc/{process}/uid_map").read_text().split()[1] in held
        engine.cli("jaula", "rm", "-f", ends)


def identity_of(engine: PrivateEngine) -> str:
    return str(engine.request("GET", "/info").json()["ID"])


@contextlib.contextmanager
def other_claims(directory: Path) -> Iterator[str]:
    """Yield a mount namespace in which ``directory`` is that of the claims.

    A claim that cannot be read holds the start of every engine that sees it.
    """
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    script = f"mount --bind {directory} {DIRECTORY} && echo && exec cat"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield f"/proc/{holder.pid}/ns/mnt"
        holder.communicate()


@pytest.mark.slow
def test_a_damaged_claim_that_cannot_be_written_is_written_later(
    new_engine: Engines, tmp_path: Path
) -> None:
    with other_claims(tmp_path) as mntns:
        first = new_engine(start=False)
        first.mntns = mntns
        first.start()
        second = new_engine(*flags_of(first, "--bridge"), start=False)
        second.mntns = mntns
        load_image(first, "busybox")
        with containers.running(first, "busybox") as kept:
            _check_written_later(first, second, kept, tmp_path / identity_of(first) / "claim.json")


def _check_written_later(
    first: PrivateEngine, second: PrivateEngine, kept: str, claim: Path
) -> None:
    since, whole, place = time.time() - 1, claim.read_bytes(), DIRECTORY / claim.parent.name
    assert first.process is not None
    with read_only(first.process.pid, DIRECTORY):
        claim.write_text("{")
        assert f"{place}/claim.json is not the claim of the engine that runs" in refusal(second)
        assert "cannot claim the names of this engine" in first.log_tail()
        assert first.cli("jaula", "exec", kept, "echo", "here").stdout == "here\n"
        assert repairs(first, since, "claim") == []
    containers.eventually(lambda: claim.read_bytes() == whole, "it is written")
    containers.eventually(lambda: repairs(first, since, "claim") == [str(place)], "it says so")
    assert "--bridge" in refusal(second)
