"""Checkpoints: a program that checks itself goes on where it was, as confined as before."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
import pytest
from google.protobuf.message import Message

from harness import containers
from harness.engine import PROJECT, PrivateEngine
from jaula.features.checkpoint.checkpoint_store import CheckpointStore
from jaula.features.checkpoint.runtime import criu_images
from jaula.features.checkpoint.runtime.proto import images_pb2

pytestmark = [pytest.mark.criu, pytest.mark.needs("gcc")]

PROGRAM = PROJECT / "tests/harness/checkpoint_program.c"
NAME = "kept"
CONFINED = (
    *("--read-only", "--tmpfs", "/tmp", "--user", "1000:1000", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges"),
)
WAYS = {
    "no network": (("--network", "none"), (), ()),
    "bridge network with connections": ((), ("tcp",), ("--tcp-established",)),
    "terminal": (("-t",), (), ()),
    "no privileges": (CONFINED, (), ()),
    "volume and limit": (("-v", "data:/tmp", "--memory", "200m"), (), ()),
    "user namespace of the host": (("--userns=host",), (), ()),
    "privileged": (("--privileged",), (), ()),
    "list of writable paths": (
        tuple(
            word
            for rule in ("write=/tmp", "write=/dev/shm")
            for word in ("--security-opt", f"landlock={rule}")
        ),
        ("refused",),
        (),
    ),
    "no filter, no Landlock": (
        ("--security-opt", "seccomp=unconfined", "--security-opt", "landlock=off"),
        (),
        (),
    ),
}
"""Flags of run, arguments of the program, flags of checkpoint create."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "program"
    subprocess.run(["gcc", "-O1", "-static", "-pthread", "-o", path, PROGRAM], check=True)
    return path


Run = Callable[..., str]


@pytest.fixture
def run(engine: PrivateEngine, busybox: str, program: Path) -> Iterator[Run]:
    """Return a function that runs the program in a container, and waits for its first rounds."""

    def start(*flags: str, arguments: tuple[str, ...] = ()) -> str:
        mount = f"{program}:/program:ro"
        jaula(engine, "run", "-d", "--name", NAME, "-v", mount, *flags, busybox, "/program",
              *arguments)  # fmt: skip
        rounds(engine, 3)
        return NAME

    yield start
    engine.cli("jaula", "rm", "-f", "-v", NAME)
    engine.cli("jaula", "volume", "rm", "data")


def jaula(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def refused(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode != 0, (words, done.stdout)
    return done.stderr


def rounds(engine: PrivateEngine, least: int) -> list[int]:
    """Wait until the program has printed at least so many rounds; return them all."""
    deadline = time.monotonic() + 20
    while True:
        log = jaula(engine, "logs", NAME)
        assert "FAILED" not in log, log
        numbers = [int(number) for number in re.findall(r"round (\d+)", log)]
        if len(numbers) >= least:
            return numbers
        assert time.monotonic() < deadline, (log, containers.inspect(engine, NAME)["State"])
        time.sleep(0.1)


def confinement(engine: PrivateEngine) -> tuple[object, ...]:
    """Return what confines the program, as the kernel shows it."""
    pid = containers.pid(engine, NAME)
    status = containers.status(pid)
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Threads")
    mounts = [
        (fields[4], fields[5])
        for fields in (
            line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        )
    ]
    return (
        tuple(status[name] for name in names),
        sorted(mounts),
        Path(f"/proc/{pid}/cgroup").read_text(),
        [Path(f"/proc/{pid}/limits").read_text(), Path(f"/proc/{pid}/oom_score_adj").read_text()],
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_container_goes_on_from_its_checkpoint(engine: PrivateEngine, run: Run, way: str) -> None:
    flags, arguments, options = WAYS[way]
    run(*flags, arguments=arguments)
    before = confinement(engine)
    assert jaula(engine, "checkpoint", "create", *options, NAME, "one") == "one\n"
    state = containers.inspect(engine, NAME)["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 137)
    last = len(rounds(engine, 3))
    jaula(engine, "start", "--checkpoint", "one", NAME)
    seen = rounds(engine, last + 8)
    assert seen[: last + 1] == list(range(1, last + 2))
    assert confinement(engine) == before
    jaula(engine, "kill", NAME)
    jaula(engine, "start", NAME)
    assert containers.inspect(engine, NAME)["State"]["Running"]


def test_the_restored_container_has_the_namespaces_of_no_other(
    engine: PrivateEngine, run: Run
) -> None:
    run()
    jaula(engine, "checkpoint", "create", NAME, "one")
    jaula(engine, "start", "--checkpoint", "one", NAME)
    pid = containers.pid(engine, NAME)
    for kind in ("user", "net", "pid", "mnt", "ipc", "uts", "cgroup"):
        own, host = (Path(f"/proc/{each}/ns/{kind}").readlink() for each in (pid, "self"))
        assert own != host, kind
    assert "0 0" not in Path(f"/proc/{pid}/uid_map").read_text()


def page(address: str) -> bytes:
    """Get a page from a server that may not listen yet."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urlopen(f"http://{address}/f", timeout=20) as answer:
                return bytes(answer.read())
        except URLError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_address_and_published_port_are_those_of_before(
    engine: PrivateEngine, busybox: str
) -> None:
    script = "mkdir /w; echo page >/w/f; cd /w; exec httpd -f -p 80"
    jaula(engine, "run", "-d", "--name", NAME, busybox, "sh", "-c", script)
    try:
        address = containers.address(engine, NAME)
        assert page(address) == b"page\n"
        jaula(engine, "checkpoint", "create", NAME, "one")
        jaula(engine, "start", "--checkpoint", "one", NAME)
        assert containers.address(engine, NAME) == address
        assert page(address) == b"page\n"
    finally:
        engine.cli("jaula", "rm", "-f", NAME)


def test_a_container_left_running_has_no_gap(engine: PrivateEngine, run: Run) -> None:
    run("--network", "none")
    pid = containers.pid(engine, NAME)
    jaula(engine, "checkpoint", "create", "--leave-running", NAME, "one")
    seen = rounds(engine, len(rounds(engine, 1)) + 5)
    assert seen == list(range(1, len(seen) + 1))
    assert containers.pid(engine, NAME) == pid


def test_the_commands_list_inspect_and_remove(engine: PrivateEngine, run: Run) -> None:
    run("--network", "none")
    jaula(engine, "checkpoint", "create", "--leave-running", NAME, "one")
    assert jaula(engine, "checkpoint", "ls", NAME) == "CHECKPOINT NAME\none\n"
    form = "{{.Usable}} {{.Problem}} {{.LeftRunning}}"
    assert jaula(engine, "checkpoint", "inspect", "-f", form, NAME, "one") == "true  true\n"
    assert "already exists for container kept" in refused(
        engine, "checkpoint", "create", NAME, "one"
    )
    jaula(engine, "checkpoint", "rm", NAME, "one")
    assert "does not exist" in refused(engine, "checkpoint", "rm", NAME, "one")
    assert "does not exist" in refused(engine, "checkpoint", "inspect", NAME, "one")


def test_a_changed_checkpoint_is_not_started(engine: PrivateEngine, run: Run) -> None:
    run("--network", "none")
    jaula(engine, "checkpoint", "create", NAME, "one")
    (core,) = (engine.root / "lib/checkpoints").glob("*/one/images/core-1.img")
    core.write_bytes(core.read_bytes() + b"\0")
    assert "core-1.img was changed" in refused(engine, "start", "--checkpoint", "one", NAME)
    assert not containers.inspect(engine, NAME)["State"]["Running"]
    form = "{{.Usable}}"
    assert jaula(engine, "checkpoint", "inspect", "-f", form, NAME, "one") == "false\n"


def signed_again(engine: PrivateEngine, edit: Callable[[Path], None]) -> None:
    """Make the checkpoint 'two': an edited copy of 'one', with a right MAC."""
    store = CheckpointStore(engine.root / "lib/checkpoints")
    container = containers.inspect(engine, NAME)["Id"]
    manifest = store.read(container, "one")
    made = store.begin(container, "two")
    for path in store.images(manifest).iterdir():
        shutil.copy(path, made)
    edit(made)
    store.commit(made, msgspec.structs.replace(manifest, name="two"))


def rewrite(path: Path, message: type[Message], change: Callable[[Any], None]) -> None:
    messages = criu_images.decode(path.read_bytes(), path.name, message)
    for each in messages:
        change(each)
    path.write_bytes(criu_images.encode(path.name, messages))


def all_capabilities(made: Path) -> None:
    def change(core: images_pb2.Core) -> None:
        core.thread_core.creds.cap_bnd[:] = [0xFFFFFFFF, 0x1FF]

    rewrite(made / "core-1.img", images_pb2.Core, change)


def no_filter(made: Path) -> None:
    def change(core: images_pb2.Core) -> None:
        core.thread_core.ClearField("seccomp_mode")
        core.thread_core.ClearField("seccomp_filter")

    rewrite(made / "core-1.img", images_pb2.Core, change)


def namespaces_of_the_host(made: Path) -> None:
    (inventory,) = criu_images.decode(
        (made / "inventory.img").read_bytes(), "inventory.img", images_pb2.Inventory
    )
    rewrite(made / "ids-1.img", images_pb2.Ids, lambda ids: ids.CopyFrom(inventory.root_ids))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (all_capabilities, "capabilities that the container does not get"),
        (no_filter, "no filter of system calls"),
        (namespaces_of_the_host, "in the host's"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_edited_checkpoint_is_refused_even_with_a_right_mac(
    engine: PrivateEngine, run: Run, edit: Callable[[Path], None], words: str
) -> None:
    run("--network", "none")
    jaula(engine, "checkpoint", "create", NAME, "one")
    signed_again(engine, edit)
    assert words in refused(engine, "start", "--checkpoint", "two", NAME)
    assert not containers.inspect(engine, NAME)["State"]["Running"]
    jaula(engine, "start", "--checkpoint", "one", NAME)


def field(number: int, value: bytes) -> bytes:
    """Return a field of a message that is shorter than 128 bytes."""
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


def test_ids_and_cgroup_of_the_images_are_not_used(
    engine: PrivateEngine, run: Run, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    canary.write_text("unchanged")

    def edit(made: Path) -> None:
        def root_of_the_host(maps: images_pb2.UserNamespace) -> None:
            maps.uid_map[0].lower_first = 0

        (user,) = made.glob("userns-*.img")
        rewrite(user, images_pb2.UserNamespace, root_of_the_host)
        link = Path("/tmp") / canary.parent.name  # a short name for a message of one byte's length
        link.symlink_to(tmp_path)
        prop = field(1, f"../../../../../../../../..{link}/canary".encode()) + field(2, b"x")
        entry = field(1, b"pids") + field(2, field(1, b"jaula") + field(3, prop))
        data = (made / "cgroup.img").read_bytes()
        (cgroups,) = criu_images.decode(data, "cgroup.img", images_pb2.Cgroup)
        del cgroups.controllers[:]
        body = cgroups.SerializeToString() + field(2, entry)
        (made / "cgroup.img").write_bytes(data[:8] + len(body).to_bytes(4, "little") + body)

    run("--network", "none")
    before = confinement(engine)
    jaula(engine, "checkpoint", "create", NAME, "one")
    try:
        signed_again(engine, edit)
        jaula(engine, "start", "--checkpoint", "two", NAME)
    finally:
        (Path("/tmp") / canary.parent.name).unlink(missing_ok=True)
    assert canary.read_text() == "unchanged"
    assert confinement(engine) == before
    rows = Path(f"/proc/{containers.pid(engine, NAME)}/uid_map").read_text().split()
    assert int(rows[1]) >= 2_000_000_000


def test_checkpoints_are_removed_with_their_container(engine: PrivateEngine, run: Run) -> None:
    run("--network", "none")
    jaula(engine, "checkpoint", "create", "--leave-running", NAME, "one")
    store = engine.root / "lib/checkpoints"
    assert list(store.glob("*/one"))
    jaula(engine, "rm", "-f", NAME)
    assert not list(store.glob("*/one"))


@pytest.mark.parametrize(
    ("flags", "options", "words"),
    [
        ((), ("--checkpoint-dir", "/tmp/x"), "another user could change"),
        (("--network", "host"), (), "network namespace"),
        (("--pid", "host"), (), "pid namespace"),
        (("--ipc", "shareable"), (), "/dev/shm is shared"),
        (("--rm",), (), "removed with its checkpoints"),
        ((), ("--tcp-close", "--tcp-established"), "exclude each other"),
    ],
)
def test_what_no_checkpoint_can_hold_is_refused(
    engine: PrivateEngine, run: Run, flags: tuple[str, ...], options: tuple[str, ...], words: str
) -> None:
    run(*flags)
    assert words in refused(engine, "checkpoint", "create", *options, NAME, "one")
    assert containers.inspect(engine, NAME)["State"]["Running"]
    assert jaula(engine, "checkpoint", "ls", NAME) == "CHECKPOINT NAME\n"


def test_exec_pause_and_connections_are_refused_with_a_way_out(
    engine: PrivateEngine, run: Run
) -> None:
    run(arguments=("tcp",))
    create = ("checkpoint", "create", "--leave-running")
    assert "--tcp-established" in refused(engine, *create, NAME, "one")
    jaula(engine, "exec", "-d", NAME, "sleep", "100")
    assert "--end-execs" in refused(engine, *create, "--tcp-established", NAME, "one")
    jaula(engine, *create, "--tcp-established", "--end-execs", NAME, "one")
    jaula(engine, "pause", NAME)
    assert "unpause it first" in refused(engine, *create, NAME, "two")
    jaula(engine, "unpause", NAME)


def test_an_engine_that_is_killed_leaves_no_half_of_a_checkpoint(
    new_engine: Callable[..., PrivateEngine], busybox_archive: Path, program: Path
) -> None:
    private = new_engine()
    jaula(private, "load", "-i", str(busybox_archive))
    mount = f"{program}:/program:ro"
    jaula(private, "run", "-d", "--name", NAME, "--network", "none", "-v", mount,
          "busybox", "/program")  # fmt: skip
    rounds(private, 3)
    create = threading.Thread(
        target=lambda: private.cli("jaula", "checkpoint", "create", NAME, "one")
    )
    create.start()
    time.sleep(0.25)
    private.kill()
    create.join()
    private.start()
    running = containers.inspect(private, NAME)["State"]["Running"]
    listed = jaula(private, "checkpoint", "ls", NAME).split()[2:]
    assert running or listed == ["one"]
    if listed:
        form = "{{.Usable}}"
        assert jaula(private, "checkpoint", "inspect", "-f", form, NAME, "one") == "true\n"
    store = private.root / "lib/checkpoints"
    assert not list(store.glob("*/.new-*"))
    if running:
        rounds(private, len(rounds(private, 1)) + 3)
    with contextlib.suppress(AssertionError):
        jaula(private, "rm", "-f", NAME)


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command")
def test_dockers_client_creates_lists_starts_and_removes(engine: PrivateEngine, run: Run) -> None:
    run("--network", "none")

    def docker(*words: str) -> str:
        done = engine.cli("docker", *words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    assert docker("checkpoint", "create", NAME, "one") == "one\n"
    assert docker("checkpoint", "ls", NAME) == "CHECKPOINT NAME\none\n"
    last = len(rounds(engine, 3))
    docker("start", "--checkpoint", "one", NAME)
    assert rounds(engine, last + 3)[last] == last + 1
    docker("checkpoint", "rm", NAME, "one")
    done = engine.cli("docker", "checkpoint", "rm", NAME, "one")
    assert done.stderr.strip() == (
        f"Error response from daemon: checkpoint one does not exist for container {NAME}"
    )
