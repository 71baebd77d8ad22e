"""Images that start before they are whole, on the real kernel and with a real engine."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.engine import PROJECT, PrivateEngine
from harness.indexed_layers import IndexedLayer, estargz, push_image, zstd_chunked
from harness.registry import PASSWORD, USER, Registry, basic_auth
from harness.slow_registry import SlowRegistry
from jaula.storage.erofs.chunks import CHUNK_SIZE

BUSYBOX = shutil.which("busybox") or ""
TIMEOUT = 30.0  # seconds
FILE = 6 << 20  # bytes
CHUNK = 256 << 10  # bytes

Engines = Callable[..., PrivateEngine]


def content(name: str, size: int = FILE) -> bytes:
    return random.Random(name).randbytes(size)


def base_tar(*more_files: str) -> bytes:
    """A busybox, large files, and what a layer can have."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(
            name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: object
        ) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mtime = kind, len(data), 1_600_000_000
            info.mode = 0o755
            for key, value in more.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))

        for name in ("bin", "etc", "data", "tmp"):
            add(name, tarfile.DIRTYPE)
        with open(BUSYBOX, "rb") as file:
            add("bin/busybox", data=file.read())
        for name in ("sh", "cat", "ls", "sha256sum", "stat", "sleep", "true"):
            add(f"bin/{name}", tarfile.SYMTYPE, linkname="busybox")
        add("etc/passwd", data=b"root:x:0:0:root:/:/bin/sh\n")
        add("data/first", data=content("first"), uid=7, gid=8, mode=0o640)
        add("data/second", data=content("second"))
        add("data/hard", tarfile.LNKTYPE, linkname="data/first")
        for each in more_files:
            add(f"data/{each}", data=content(each))
        add("data/gone", data=b"gone")
        add("data/noted", data=b"n", pax_headers={"SCHILY.xattr.user.note": "hello"})
        add("implied/deep/file", data=b"deep")
    return out.getvalue()


def upper_tar() -> bytes:
    """A layer that hides a file of the base, and has a large file itself."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        directory = tarfile.TarInfo("implied")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o750
        archive.addfile(directory)
        for name, data in (
            ("data/.wh.gone", b""),
            ("implied/.wh..wh..opq", b""),
            ("data/upper", content("upper")),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


both_formats = pytest.mark.parametrize("layers", ["estargz", "zstd:chunked"], indirect=True)
"""Run the test with both formats by default; the others get the first one by ``-m slow``."""


@pytest.fixture(
    scope="module", params=[pytest.param("estargz", marks=pytest.mark.slow), "zstd:chunked"]
)
def layers(request: pytest.FixtureRequest) -> tuple[IndexedLayer, IndexedLayer]:
    write = estargz if request.param == "estargz" else zstd_chunked
    return write(base_tar(), chunk_size=CHUNK), write(upper_tar(), chunk_size=CHUNK)


@pytest.fixture
def registry(layers: tuple[IndexedLayer, IndexedLayer]) -> Iterator[SlowRegistry]:
    with SlowRegistry(*layers) as server:
        yield server


@pytest.fixture
def engine(new_engine: Engines) -> PrivateEngine:
    return new_engine("--pull-mode", "lazy")


def run(engine: PrivateEngine, registry: SlowRegistry, *command: str) -> str:
    done = engine.cli("jaula", "run", "--rm", "--network", "none", registry.image, *command)
    assert done.returncode == 0, done.stderr + engine.log_tail()
    return done.stdout


def wait(engine: PrivateEngine, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, engine.log_tail()
        time.sleep(0.05)


def is_whole(engine: PrivateEngine, registry: SlowRegistry) -> bool:
    layers = engine.root / "lib" / "layers"
    blobs = engine.root / "lib" / "images" / "blobs" / "sha256"
    return all(
        (layers / diff_id.removeprefix("sha256:") / "layer.json").exists()
        for diff_id in registry.diff_ids
    ) and all((blobs / digest.removeprefix("sha256:")).exists() for digest in registry.blobs)


def wait_whole(engine: PrivateEngine, registry: SlowRegistry) -> None:
    wait(engine, lambda: is_whole(engine, registry))


@both_formats
def test_a_container_reads_files_before_its_image_is_whole(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    registry.gate.clear()
    assert run(engine, registry, "sha256sum", "/data/second").split()[0] == sha256(
        content("second")
    )
    assert not is_whole(engine, registry)
    expected = sha256(content("first"))
    assert run(engine, registry, "sha256sum", "/data/first").split()[0] == expected
    assert run(engine, registry, "sha256sum", "/data/hard").split()[0] == expected
    registry.gate.set()
    wait_whole(engine, registry)
    registry.alive = False
    assert run(engine, registry, "sha256sum", "/data/upper").split()[0] == sha256(content("upper"))


LISTING = "stat -c '%n %F %a %u %g %s %h %Y %t %T' / /* /bin/* /data/* /etc/*"


@both_formats
def test_a_mounted_layer_is_the_extracted_one(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    registry.gate.clear()
    mounted = run(engine, registry, "sh", "-c", LISTING)
    assert "/data/gone" not in mounted
    assert "/implied/deep" not in mounted
    assert not is_whole(engine, registry)
    registry.gate.set()
    wait_whole(engine, registry)
    extracted = run(engine, registry, "sh", "-c", LISTING)
    # Sizes of directories are the file system's, times of those without an entry the unpacking's.
    skip = ("/ ", "/data ", "/proc ", "/sys ", "/dev ", "/implied ", "/stargz.index.json", "/etc")
    kept = [
        [re.sub(r"( directory \d+ \d+ \d+) \d+", r"\1", line) for line in text.splitlines()
         if not line.startswith(skip)]
        for text in (mounted, extracted)
    ]  # fmt: skip
    assert kept[0] == kept[1]
    assert len(kept[0]) > 12


@pytest.mark.slow
def test_a_container_that_started_early_goes_on_when_the_image_is_whole(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    start_early(engine, registry, "sleep", "1000")
    registry.gate.set()
    wait_whole(engine, registry)
    registry.alive = False
    done = engine.cli("jaula", "exec", "early", "sha256sum", "/data/second")
    assert done.stdout.split()[0] == sha256(content("second")), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("write", [pytest.param(estargz, marks=pytest.mark.slow), zstd_chunked])
def test_a_chunk_of_another_layer_is_read_from_the_disk(
    new_engine: Engines, write: Callable[..., IndexedLayer]
) -> None:
    engine = new_engine("--pull-mode", "lazy", "--storage-opt", "erofs=on")
    with (
        SlowRegistry(write(base_tar(), chunk_size=CHUNK_SIZE)) as first,
        SlowRegistry(write(base_tar("new"), chunk_size=CHUNK_SIZE)) as second,
    ):
        run(engine, first, "true")
        wait_whole(engine, first)
        second.gate.clear()
        run(engine, second, "true")
        served = second.served
        for name in ("first", "second"):
            line = run(engine, second, "sha256sum", f"/data/{name}")
            assert line.split()[0] == sha256(content(name))
        assert second.served == served
        assert not is_whole(engine, second)
        second.gate.set()
        wait_whole(engine, second)
        second.alive = False
        for name in ("first", "new"):
            line = run(engine, second, "sha256sum", f"/data/{name}")
            assert line.split()[0] == sha256(content(name))
        blob = engine.root / "lib" / "layers" / second.diff_ids[0][7:] / "blob"
        assert FILE <= blob.stat().st_size < FILE + (64 << 10)  # eStargz has a file with its TOC


def test_a_registry_without_ranges_is_pulled_from_as_always(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    registry.ranges = False
    assert run(engine, registry, "cat", "/etc/passwd").startswith("root")
    assert is_whole(engine, registry)


@pytest.mark.slow
def test_a_read_waits_for_a_dead_network(engine: PrivateEngine, registry: SlowRegistry) -> None:
    registry.gate.clear()
    run(engine, registry, "true")
    registry.alive = False
    refused = registry.requests
    reader = subprocess.Popen(
        [
            *(str(PROJECT / "jaula"), "run", "--rm", "--network", "none"),
            *(registry.image, "sha256sum", "/data/upper"),
        ],
        env=engine.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait(engine, lambda: registry.requests > refused + 6)  # more than two attempts of both
    assert reader.poll() is None
    registry.alive = True
    output, error = reader.communicate(timeout=60)
    assert output.split()[:1] == [sha256(content("upper"))], error
    registry.gate.set()
    wait_whole(engine, registry)


@pytest.mark.slow
def test_a_reader_of_a_dead_network_can_be_killed(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    start_early(engine, registry, "sleep", "1000")
    registry.alive = False
    refused = registry.requests
    started = engine.cli("jaula", "exec", "-d", "early", "cat", "/data/upper")
    assert started.returncode == 0, started.stderr
    wait(engine, lambda: registry.requests > refused + 3)
    removed = engine.cli("jaula", "rm", "-f", "early")
    assert removed.returncode == 0, removed.stderr
    assert engine.cli("jaula", "ps", "-aq").stdout == ""


@pytest.mark.slow
def test_an_image_that_the_registry_has_lost_is_pulled_again(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    registry.gate.clear()
    run(engine, registry, "true")
    registry.lost = True
    registry.gate.set()
    wait(engine, lambda: "cannot get whole" in engine.log_tail())
    saved = engine.cli("jaula", "save", "-o", str(engine.root / "saved.tar"), registry.image)
    assert saved.returncode != 0
    assert "pull the image again" in saved.stderr
    registry.lost = False
    pulled = engine.cli("jaula", "pull", registry.image)
    assert pulled.returncode == 0, pulled.stderr
    wait_whole(engine, registry)
    expected = sha256(content("upper"))
    assert run(engine, registry, "sha256sum", "/data/upper").split()[0] == expected


def test_save_waits_for_the_whole_image(engine: PrivateEngine, registry: SlowRegistry) -> None:
    registry.gate.clear()
    run(engine, registry, "true")
    target = engine.root / "saved.tar"
    threading.Timer(1.0, registry.gate.set).start()
    done = engine.cli("jaula", "save", "-o", str(target), registry.image)
    assert done.returncode == 0, done.stderr
    with tarfile.open(target) as archive:
        assert archive.getnames()
    assert os.path.getsize(target) > 3 * FILE
    assert is_whole(engine, registry)


def test_a_removed_image_ends_its_server(engine: PrivateEngine, registry: SlowRegistry) -> None:
    registry.gate.clear()
    run(engine, registry, "true")
    assert list((engine.root / "lib" / "lazy").iterdir())
    done = engine.cli("jaula", "rmi", registry.image)
    assert done.returncode == 0, done.stderr
    assert "Deleted" in done.stdout
    wait(engine, lambda: not list((engine.root / "lib" / "lazy").iterdir()))
    assert not list((engine.root / "lib" / "layers").iterdir())


def test_the_next_engine_goes_on(engine: PrivateEngine, registry: SlowRegistry) -> None:
    registry.gate.clear()
    run(engine, registry, "true")
    engine.kill()
    engine.start()
    expected = sha256(content("second"))
    assert run(engine, registry, "sha256sum", "/data/second").split()[0] == expected
    assert not is_whole(engine, registry)
    registry.gate.set()
    wait_whole(engine, registry)
    registry.alive = False
    assert run(engine, registry, "sha256sum", "/data/second").split()[0] == expected


@both_formats
def test_a_chunk_with_another_digest_is_never_read(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    registry.gate.clear()
    run(engine, registry, "true")
    registry.corrupt = True
    done = engine.cli(
        *("jaula", "run", "--rm", "--network", "none"),
        *(registry.image, "cat", "/data/upper"),
    )
    assert done.stdout == ""
    assert "Input/output error" in done.stderr
    wait(engine, lambda: "cannot read /data/upper" in engine.log_tail())
    registry.gate.set()
    wait(engine, lambda: "verification failed for digest" in engine.log_tail())
    assert not is_whole(engine, registry)


def start_early(engine: PrivateEngine, registry: SlowRegistry, *command: str) -> None:
    """Start the container ``early`` while the registry holds the contents back."""
    registry.gate.clear()
    words = ("jaula", "run", "-d", "--name", "early", "--network", "none")
    started = engine.cli(*words, registry.image, *command)
    assert started.returncode == 0, started.stderr


def server_pids(engine: PrivateEngine) -> list[int]:
    """Return the lazy servers of an engine: they have files below its directory open."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if b"jaula.features.lazy.lazy_server" not in file.read():
                    continue
            links = [os.readlink(f"/proc/{name}/fd/{fd}") for fd in os.listdir(f"/proc/{name}/fd")]
        except OSError:
            continue
        if any(link.startswith(str(engine.root)) for link in links):
            found.append(int(name))
    return found


def test_a_killed_server_is_an_error_and_no_wait(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    start_early(engine, registry, "sleep", "1000")
    (server,) = server_pids(engine)
    os.kill(server, signal.SIGKILL)
    wait(engine, lambda: "the lazy server has ended" in engine.log_tail())
    done = engine.cli("jaula", "exec", "early", "cat", "/data/second")
    assert done.returncode != 0
    assert engine.cli("jaula", "ps").returncode == 0
    wait(engine, lambda: server_pids(engine) not in ([], [server]))  # the engine starts another
    registry.gate.set()
    pulled = engine.cli("jaula", "pull", registry.image)
    assert pulled.returncode == 0, pulled.stderr
    restarted = engine.cli("jaula", "restart", "-t", "0", "early")
    assert restarted.returncode == 0, restarted.stderr
    done = engine.cli("jaula", "exec", "early", "sha256sum", "/data/second")
    assert done.stdout.split()[0] == sha256(content("second")), done.stderr


@pytest.mark.slow
def test_a_server_that_is_stopped_at_its_begin_is_given_up(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    """It has sent no state for 30 seconds, so the image is pulled whole."""
    stopped = threading.Event()

    def stop() -> None:
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end and not stopped.is_set():
            for server in server_pids(engine):
                os.kill(server, signal.SIGSTOP)
                stopped.set()

    thread = threading.Thread(target=stop)
    thread.start()
    begun = time.monotonic()
    pulled = engine.cli("jaula", "pull", registry.image, timeout=4 * TIMEOUT)
    thread.join()
    assert pulled.returncode == 0, pulled.stderr
    assert stopped.is_set()
    assert time.monotonic() - begun < 3 * TIMEOUT
    assert run(engine, registry, "sha256sum", "/data/second").split()[0] == sha256(
        content("second")
    )
    wait(engine, lambda: server_pids(engine) == [])


@pytest.mark.slow
@pytest.mark.parametrize("write", [pytest.param(estargz, marks=pytest.mark.slow), zstd_chunked])
def test_a_file_is_read_beside_a_stopped_engine(
    new_engine: Engines, write: Callable[..., IndexedLayer]
) -> None:
    """The server asks the engine for chunks of other layers; without an answer it fetches them."""
    engine = new_engine("--pull-mode", "lazy", "--storage-opt", "erofs=on")
    with (
        SlowRegistry(write(base_tar(), chunk_size=CHUNK_SIZE)) as first,
        SlowRegistry(write(base_tar("new"), chunk_size=CHUNK_SIZE)) as second,
    ):
        run(engine, first, "true")
        wait_whole(engine, first)
        start_early(engine, second, "sleep", "1000")
        pid = containers.pid(engine, "early")
        assert engine.process is not None
        os.kill(engine.process.pid, signal.SIGSTOP)
        try:
            second.gate.set()
            begun = time.monotonic()
            read = subprocess.run(
                ["sha256sum", f"/proc/{pid}/root/data/first"],
                capture_output=True,
                text=True,
                timeout=4 * TIMEOUT,
            )
            assert time.monotonic() - begun < 2 * TIMEOUT
        finally:
            os.kill(engine.process.pid, signal.SIGCONT)
        assert read.stdout.split()[0] == sha256(content("first")), read.stderr


@pytest.mark.slow
def test_files_that_a_container_wrote_are_there_when_its_image_is_whole(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    script = (
        "echo more >>/data/noted; test -e /data/first && ln /data/first /data/other; sleep 1000"
    )
    start_early(engine, registry, "sh", "-c", script)
    wait(
        engine,
        lambda: "/data/other" in engine.cli("jaula", "diff", "early").stdout,
    )
    registry.gate.set()
    wait_whole(engine, registry)
    assert engine.cli("jaula", "stop", "-t", "0", "early").returncode == 0
    assert engine.cli("jaula", "start", "early").returncode == 0
    read = "cat /data/noted; sha256sum </data/other"
    done = engine.cli("jaula", "exec", "early", "sh", "-c", read)
    # The script has run twice.
    assert done.stdout.split() == ["nmore", "more", sha256(content("first")), "-"], done.stderr


@pytest.mark.slow
def test_layers_that_got_whole_without_an_engine_are_stored(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    registry.gate.clear()
    run(engine, registry, "true")
    (server,) = server_pids(engine)
    engine.kill()
    registry.gate.set()
    wait(engine, lambda: len(list(engine.root.glob("lib/lazy/*/*.whole"))) == 2)
    os.kill(server, signal.SIGKILL)
    engine.start()
    assert is_whole(engine, registry)
    registry.alive = False
    expected = sha256(content("second"))
    assert run(engine, registry, "sha256sum", "/data/second").split()[0] == expected


@pytest.mark.slow
@pytest.mark.parametrize("removed", ["", "lazy"])
def test_a_removed_run_directory_takes_no_lazy_image_away(
    engine: PrivateEngine, registry: SlowRegistry, removed: str
) -> None:
    """The kernel detaches the mounts below it."""
    start_early(engine, registry, "sleep", "1000")
    (server,) = server_pids(engine)
    directory = engine.run / removed
    inode = directory.stat().st_ino
    while directory.exists() and directory.stat().st_ino == inode:
        shutil.rmtree(directory, ignore_errors=True)
    wait(engine, engine.socket.exists)
    wait(engine, lambda: len(list(engine.run.glob("lazy/*"))) == 2)
    expected = sha256(content("first"))
    for early in (True, False):  # one that ran before, and the next one
        words = ("exec", "early") if early else ("run", "--rm", "--network", "none", registry.image)
        done = engine.cli("jaula", *words, "sh", "-c", "sha256sum /data/first; ls /data")
        assert done.stdout.split()[0] == expected, done.stderr + engine.log_tail()
    engine.kill()
    engine.start()
    assert server_pids(engine) == [server]
    assert run(engine, registry, "sha256sum", "/data/first").split()[0] == expected
    registry.gate.set()
    wait_whole(engine, registry)
    expected = sha256(content("second"))
    assert run(engine, registry, "sha256sum", "/data/second").split()[0] == expected
    done = engine.cli("jaula", "exec", "early", "sha256sum", "/data/second")
    assert done.stdout.split()[0] == expected, done.stderr


@pytest.mark.slow
def test_a_run_directory_removed_without_an_engine_takes_no_lazy_image_away(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    """The next engine finds the server, and mounts its layers again."""
    start_early(engine, registry, "sleep", "1000")
    (server,) = server_pids(engine)
    engine.kill()
    shutil.rmtree(engine.run)
    engine.start()
    assert server_pids(engine) == [server]
    assert len(list(engine.run.glob("lazy/*"))) == 2
    expected = sha256(content("first"))
    for early in (True, False):  # one that ran before, and the next one
        words = ("exec", "early") if early else ("run", "--rm", "--network", "none", registry.image)
        done = engine.cli("jaula", *words, "sha256sum", "/data/first")
        assert done.stdout.split()[0] == expected, done.stderr + engine.log_tail()
    registry.gate.set()
    wait_whole(engine, registry)
    done = engine.cli("jaula", "exec", "early", "sha256sum", "/data/second")
    assert done.stdout.split()[0] == sha256(content("second")), done.stderr
    assert server_pids(engine) in ([server], [])


@pytest.mark.slow
def test_a_server_of_an_earlier_version_gets_its_socket_below_the_root(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    start_early(engine, registry, "sleep", "1000")
    (server,) = server_pids(engine)
    engine.kill()
    (path,) = engine.root.glob("lib/lazy/*.sock")
    former = engine.run / "lazy" / path.name
    former.symlink_to(path.rename(path.with_name("former.sock")))
    engine.start()
    assert server_pids(engine) == [server]
    assert path.exists() and not former.is_symlink()
    assert list(path.parent.glob("*.sock")) == [path]
    engine.kill()
    shutil.rmtree(engine.run)
    engine.start()
    assert server_pids(engine) == [server]
    assert engine.cli("jaula", "rm", "-f", "early").returncode == 0
    assert engine.cli("jaula", "rmi", registry.image).returncode == 0
    wait(engine, lambda: not server_pids(engine))
    wait(engine, lambda: not list(engine.root.glob("lib/lazy/*")))


@pytest.mark.slow
@both_formats
def test_an_incomplete_image_completes_itself_after_a_reboot(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    registry.gate.clear()
    run(engine, registry, "sha256sum", "/data/first")
    (server,) = server_pids(engine)
    engine.kill()
    os.kill(server, signal.SIGKILL)
    registry.alive = False  # the network comes later than the engine
    engine.start()
    assert engine.cli("jaula", "system", "check").returncode == 0
    run(engine, registry, "true")
    # A former process has fetched this file.
    expected = sha256(content("first"))
    assert run(engine, registry, "sha256sum", "/data/first").split()[0] == expected
    registry.alive = True
    registry.gate.set()
    wait_whole(engine, registry)
    expected = sha256(content("second"))
    assert run(engine, registry, "sha256sum", "/data/second").split()[0] == expected
    wait(engine, lambda: not list((engine.root / "lib" / "lazy").iterdir()))


def login(engine: PrivateEngine, registry: SlowRegistry) -> None:
    words = ("login", "-u", "user", "--password-stdin", registry.name)
    done = engine.cli("jaula", *words, input=registry.password)
    assert done.returncode == 0, done.stderr


def reboot_without_credentials(engine: PrivateEngine, registry: SlowRegistry) -> str:
    """Let engine and server end before the image of a private registry is whole.

    Return the failure that the next engine states.
    """
    registry.password = "a word"
    login(engine, registry)
    registry.gate.clear()
    run(engine, registry, "sha256sum", "/data/first", "/data/upper")
    (server,) = server_pids(engine)
    engine.kill()
    os.kill(server, signal.SIGKILL)
    stored = [path for path in engine.root.rglob("*.json") if registry.password in path.read_text()]
    assert stored == [], "the credentials are on the disk"
    registry.gate.set()
    engine.start()
    wait(engine, lambda: bool(incomplete(engine, registry).get("Failure")))
    return str(incomplete(engine, registry)["Failure"])


def incomplete(engine: PrivateEngine, registry: SlowRegistry) -> dict[str, Any]:
    inspected = engine.request("GET", f"/images/{registry.image}/json")
    assert inspected.status == 200, inspected.body
    found: dict[str, Any] = inspected.json().get("Incomplete", {})
    return found


@pytest.mark.slow
def test_an_image_that_lacks_credentials_after_a_reboot_says_so(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    failure = reboot_without_credentials(engine, registry)
    assert re.match(r"\d+ of \d+ bytes are missing, and the registry does not send them", failure)
    assert incomplete(engine, registry)["Advice"] == f"jaula pull {registry.image}"
    rows = engine.request("GET", "/images/json").json()
    assert [row["Incomplete"]["Failure"] for row in rows] == [failure]
    assert f"; try: jaula pull {registry.image}" in engine.log_tail()
    words = ("--since", "1h", "--until", str(int(time.time()) + 1), "--filter")
    events = engine.cli("jaula", "events", *words, "event=fetch-failed").stdout
    assert f"advice=jaula pull {registry.image}" in events
    created = engine.request("POST", "/containers/create", {"Image": registry.image})
    assert created.status == 404  # clients pull then
    assert failure in created.json()["message"]
    saved = engine.cli("jaula", "save", "-o", str(engine.root / "saved.tar"), registry.image)
    assert "does not send them without credentials" in saved.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pull", "run"])
def test_credentials_complete_an_image_with_what_is_there(
    engine: PrivateEngine, registry: SlowRegistry, command: str
) -> None:
    reboot_without_credentials(engine, registry)
    sizes = fetched_parts(engine)
    missing = sum(size - present for size, present in sizes)
    assert missing < sum(size for size, _ in sizes) * 2 / 3
    served = registry.served
    if command == "pull":
        done = engine.cli("jaula", "pull", registry.image)
        assert done.returncode == 0, done.stderr
        assert "Mounted, download continues" in done.stdout
    else:
        run(engine, registry, "true")
    wait_whole(engine, registry)
    assert registry.served - served < missing + 4 * CHUNK  # the last of a range may be a part
    assert incomplete(engine, registry) == {}
    registry.alive = False
    for name in ("second", "upper"):
        expected = sha256(content(name))
        assert run(engine, registry, "sha256sum", f"/data/{name}").split()[0] == expected
    wait(engine, lambda: not list((engine.root / "lib" / "lazy").iterdir()))


def fetched_parts(engine: PrivateEngine) -> list[tuple[int, int]]:
    """Return size and present bytes of the blobs in the directories of lazy servers."""
    blobs = [path.stat() for path in engine.root.glob("lib/lazy/*/*.blob")]
    assert blobs
    return [(blob.st_size, min(blob.st_size, blob.st_blocks * 512)) for blob in blobs]


@pytest.mark.slow
def test_other_credentials_do_not_complete_an_image(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    reboot_without_credentials(engine, registry)
    words = ("login", "-u", "user", "--password-stdin", registry.name)
    assert engine.cli("jaula", "logout", registry.name).returncode == 0
    assert engine.cli("jaula", *words, input="wrong").returncode != 0
    served = registry.served
    assert engine.cli("jaula", "pull", registry.image).returncode != 0
    assert incomplete(engine, registry)["Failure"]
    assert registry.served == served


@pytest.mark.slow
def test_a_server_that_dies_again_and_again_is_replaced(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    registry.gate.clear()
    run(engine, registry, "true")
    (server,) = server_pids(engine)
    for _ in range(2):
        os.kill(server, signal.SIGKILL)
        former = server
        wait(engine, lambda: server_pids(engine) not in ([], [former]))  # noqa: B023 - waited for
        (server,) = server_pids(engine)
    expected = sha256(content("second"))
    end = time.monotonic() + TIMEOUT
    words = ("run", "--rm", "--network", "none", registry.image, "sha256sum", "/data/second")
    while (done := engine.cli("jaula", *words)).stdout.split()[:1] != [expected]:
        assert time.monotonic() < end, done.stderr + engine.log_tail()
    registry.gate.set()
    wait_whole(engine, registry)


def test_the_server_has_no_privilege(engine: PrivateEngine, registry: SlowRegistry) -> None:
    registry.gate.clear()
    run(engine, registry, "true")
    (server,) = server_pids(engine)
    status = Path(f"/proc/{server}/status").read_text()
    facts = {
        key: value.split() for key, _, value in (row.partition(":") for row in status.splitlines())
    }
    assert "0" not in (*facts["Uid"], *facts["Gid"])
    assert facts["Groups"] == []
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(facts[kind][0], 16) == 0
    assert facts["NoNewPrivs"] == ["1"]
    assert facts["Seccomp"] == ["2"]
    assert all(
        (path.stat().st_uid, path.stat().st_gid) != (0, 0)
        for path in (engine.root / "lib" / "lazy").glob("*/*")
    )


def test_the_server_has_the_credentials_of_the_pull(
    engine: PrivateEngine, layers: tuple[IndexedLayer, IndexedLayer], tmp_path: Path
) -> None:
    directory = tmp_path / "registry"
    directory.mkdir()
    with Registry(directory, auth=basic_auth(directory)) as server:
        image = push_image(server, "box", *layers, Cmd=["sh"])
        login = engine.cli(
            *("jaula", "login", "-u", USER, "--password-stdin", server.name), input=PASSWORD
        )
        assert login.returncode == 0, login.stderr
        done = engine.cli(
            *("jaula", "run", "--rm", "--network", "none", image, "sha256sum", "/data/upper")
        )
        assert done.returncode == 0, done.stderr + engine.log_tail()
        assert done.stdout.split()[0] == sha256(content("upper")), done.stderr
        assert "Mounted, download continues" in done.stderr, done.stderr + engine.log_tail()


def test_the_event_of_a_whole_image_has_its_name(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    run(engine, registry, "true")
    wait_whole(engine, registry)
    until = str(int(time.time()) + 1)
    listed = engine.cli(
        *("jaula", "events", "--since", "1h", "--until", until, "--filter", "event=fetch")
    )
    assert registry.image in listed.stdout, listed.stderr


@pytest.mark.parametrize("compression", ["estargz", "zstd:chunked"])
def test_a_push_with_a_table_of_contents_can_be_pulled_lazily(
    engine: PrivateEngine, compression: str, tmp_path: Path
) -> None:
    archive = tmp_path / "base.tar"
    archive.write_bytes(base_tar())
    with Registry(tmp_path / "registry") as server:
        image = f"{server.name}/box:1"
        for words in (
            ("import", str(archive), image),
            ("push", "--compression", compression, image),
            ("rmi", image),
        ):
            done = engine.cli("jaula", *words)
            assert done.returncode == 0, done.stderr
        done = engine.cli(
            *("jaula", "run", "--rm", "--network", "none", image, "sha256sum", "/data/second")
        )
        assert done.stdout.split()[0] == sha256(content("second")), done.stderr
        assert "Mounted, download continues" in done.stderr
        wait(engine, lambda: not list((engine.root / "lib" / "lazy").iterdir()))
    done = engine.cli(
        *("jaula", "run", "--rm", "--network", "none", image, "sha256sum", "/data/first")
    )
    assert done.stdout.split()[0] == sha256(content("first")), done.stderr
    verified = engine.cli("jaula", "image", "verify", image)
    assert verified.returncode == 0, verified.stdout


@pytest.mark.slow
def test_verify_says_that_layers_cannot_be_compared(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    start_early(engine, registry, "sleep", "1000")
    verified = engine.cli("jaula", "verify", "early")
    assert "is not whole" in verified.stdout
    assert "FAILS" not in verified.stdout
    registry.gate.set()
    wait_whole(engine, registry)
    verified = engine.cli("jaula", "verify", "early")
    assert "started before its image was whole" in verified.stdout
    assert "FAILS" not in verified.stdout
    assert engine.cli("jaula", "restart", "-t", "0", "early").returncode == 0
    verified = engine.cli("jaula", "verify", "early")
    assert "2 layers seen in the root" in verified.stdout


def test_the_image_policy_decides_before_anything_is_fetched(
    new_engine: Engines, registry: SlowRegistry, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[images]\n"{registry.name}" = "reject"\n')
    policy.chmod(0o600)
    engine = new_engine("--pull-mode", "lazy", "--policy", str(policy))
    done = engine.cli("jaula", "run", "--rm", registry.image, "true")
    assert done.returncode == 125
    assert "rejects" in done.stderr or "reject" in done.stderr
    assert registry.served == 0
    assert not (engine.root / "lib" / "lazy").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--pull-mode", "eager"), "must be one of whole, lazy"),
        (("--pull-mode", "lazy", "--storage-driver", "vfs"), "needs the storage driver overlay"),
    ],
)
def test_a_mode_that_the_engine_cannot_have_is_an_error_of_its_start(
    new_engine: Engines, flags: tuple[str, ...], message: str
) -> None:
    engine = new_engine(*flags, start=False)
    done = subprocess.run(
        engine.command(), capture_output=True, text=True, timeout=30, check=False, cwd="/"
    )
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.slow
def test_an_engine_with_the_mode_whole_finishes_what_a_lazy_one_began(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    registry.gate.clear()
    run(engine, registry, "true")
    engine.stop()
    engine.extra_flags = ()
    engine.start()
    expected = sha256(content("second"))
    assert run(engine, registry, "sha256sum", "/data/second").split()[0] == expected
    registry.gate.set()
    wait_whole(engine, registry)


@pytest.mark.slow
def test_a_dead_network_does_not_hold_the_engine(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    """The registry takes connections and sends nothing, which is the longest wait."""
    registry.gate.clear()
    pulled = engine.cli("jaula", "pull", registry.image)
    assert pulled.returncode == 0, pulled.stderr
    registry.silent = True
    words = ("run", "--rm", "--network", "none", "--user", "root", registry.image, "true")
    starts = [threading.Thread(target=engine.cli, args=("jaula", *words)) for _ in range(2)]
    for start in starts:
        start.start()
    end = time.monotonic() + 4
    slowest = 0.0
    while time.monotonic() < end:
        begin = time.monotonic()
        assert engine.request("GET", "/_ping").status == 200
        slowest = max(slowest, time.monotonic() - begin)
        time.sleep(0.02)
    registry.silent = False
    registry.gate.set()
    for start in starts:
        start.join(60)
    assert slowest < 2


def test_a_build_uses_the_whole_image(
    engine: PrivateEngine, registry: SlowRegistry, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {registry.image}\nRUN echo new >/new\n")
    registry.gate.clear()
    run(engine, registry, "true")
    threading.Timer(1.0, registry.gate.set).start()
    built = engine.cli("jaula", "build", "-t", "built", str(tmp_path))
    assert built.returncode == 0, built.stderr
    assert is_whole(engine, registry)
    for name in ("built", registry.image):
        assert engine.cli("jaula", "rmi", name).returncode == 0
    built = engine.cli("jaula", "build", "--no-cache", "-t", "built", str(tmp_path))
    assert built.returncode == 0, built.stderr
    assert is_whole(engine, registry)
    assert not list((engine.root / "lib" / "lazy").iterdir())


@pytest.mark.slow
def test_two_pulls_at_once_are_one_image(engine: PrivateEngine, registry: SlowRegistry) -> None:
    registry.gate.clear()
    results = []
    pulls = [
        threading.Thread(
            target=lambda: results.append(engine.cli("jaula", "pull", registry.image).returncode)
        )
        for _ in range(3)
    ]
    for pull in pulls:
        pull.start()
    for pull in pulls:
        pull.join(60)
    assert results == [0, 0, 0], engine.log_tail()
    expected = sha256(content("second"))
    assert run(engine, registry, "sha256sum", "/data/second").split()[0] == expected
    registry.gate.set()
    wait_whole(engine, registry)
    wait(engine, lambda: not list((engine.root / "lib" / "lazy").iterdir()))
    registry.alive = False
    assert run(engine, registry, "sha256sum", "/data/second").split()[0] == expected


@pytest.mark.slow
def test_an_interrupted_pull_of_another_layer_ends_the_servers(
    engine: PrivateEngine, layers: tuple[IndexedLayer, IndexedLayer]
) -> None:
    """A layer that is fetched whole keeps the pull from ending, and its client goes."""
    base, upper = layers
    with SlowRegistry(base, upper._replace(annotations={})) as registry:
        registry.gate.clear()
        pull = subprocess.Popen(
            [str(PROJECT / "jaula"), "pull", registry.image],
            env=engine.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait(engine, lambda: bool(server_pids(engine)))
        time.sleep(0.5)
        pull.terminate()
        pull.wait(20)
        wait(engine, lambda: not list((engine.root / "lib" / "lazy").iterdir()))
        registry.alive = False
    assert not list((engine.root / "lib" / "layers").iterdir())


@pytest.mark.slow
def test_a_container_reads_long_after_its_image_is_whole(
    engine: PrivateEngine, registry: SlowRegistry
) -> None:
    """The engine has left the server by then, and its pages are not in the cache."""
    start_early(engine, registry, "sleep", "1000")
    (server,) = server_pids(engine)
    registry.gate.set()
    wait(engine, lambda: not list((engine.root / "lib" / "lazy").iterdir()))
    registry.alive = False
    time.sleep(3)
    for name in ("first", "second", "upper"):
        done = engine.cli("jaula", "exec", "early", "sha256sum", f"/data/{name}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[0] == sha256(content(name))
    assert os.path.exists(f"/proc/{server}")
