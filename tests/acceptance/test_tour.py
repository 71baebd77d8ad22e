"""The guided tour on real containers, step by step. ``jaula demo`` runs the same for a user."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from harness import containers
from harness.containers import eventually, inspect, running
from harness.engine import PROJECT, PrivateEngine
from harness.terminal import Terminal

NAMESPACES = ("ipc", "mnt", "net", "pid", "user", "uts", "cgroup")
DEFAULT_CAPABILITIES = "00000000a80425fb"
NO_CAPABILITIES = "0000000000000000"


# 1. The engine and the kernel


def test_info_lists_the_features_of_the_engine(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox):
        done = engine.cli("jaula", "info")
    assert done.returncode == 0, done.stderr
    for pattern in (
        r"Containers: [1-9]",
        r"Running: [1-9]",
        r"Paused: 0",
        r"Stopped: \d",
        r"Images: [1-9]",
        r"Storage Driver: (overlay2?|overlayfs|vfs)",
        r"Backing Filesystem: \w+",
        r"Logging Driver: json-file",
        r"Cgroup Driver: cgroupfs",
        r"Cgroup Version: [12]",
        r"Volume: local",
        r"Network: bridge host (none|null)",
        r"Security Options:(?s:.*)seccomp",
        rf"Kernel Version: {re.escape(os.uname().release)}",
        r"Operating System: \w+",
        rf"CPUs: {os.cpu_count()}",
        r"Total Memory: [\d.]+\s?[GM]iB",
        rf"Root Dir: {re.escape(str(engine.root))}",
        r"ID: \S+",
    ):
        assert re.search(pattern, done.stdout), f"no {pattern!r} in\n{done.stdout}"


def test_check_reports_the_kernel_feature_by_feature(engine: PrivateEngine) -> None:
    done = engine.cli("jaula", "check")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("user", "pid", "cgroup", "memory", "overlay", "seccomp", "veth", "nftables"):
        assert word in done.stdout.lower(), f"nothing about {word} in\n{done.stdout}"


# 2. A terminal


def test_a_shell_in_a_terminal_resizes_detaches_and_reattaches(
    engine: PrivateEngine, busybox: str
) -> None:
    jaula, name = str(PROJECT / "jaula"), containers.unique("term")
    environment = engine.environment()
    try:
        words = [jaula, "run", "-it", "--name", name, busybox, "sh"]
        with Terminal(words, environment, rows=33, columns=101) as terminal:
            terminal.expect(r"# ")
            terminal.send("stty size\r")
            terminal.expect(r"33 101")
            terminal.resize(44, 132)
            eventually(lambda: _shows(terminal, "stty size\r", "44 132"), "the terminal is resized")
            terminal.send("sleep 300\r")
            time.sleep(0.5)
            terminal.send("\x03")
            terminal.expect(r"# ")
            terminal.send("echo st''ill here\r")
            terminal.expect(r"still here")
            terminal.send("\x10\x11")
            assert terminal.wait() == 0
        assert inspect(engine, name)["State"]["Running"]
        listed = engine.cli("jaula", "ps").stdout
        for column in ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"):
            assert column in listed
        assert name in listed
        with Terminal([jaula, "attach", name], environment) as terminal:
            terminal.send("\r")
            terminal.expect(r"# ")
            terminal.send("exit 7\r")
            assert terminal.wait() == 7
        state = inspect(engine, name)["State"]
        assert (state["Running"], state["ExitCode"]) == (False, 7)
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def _shows(terminal: Terminal, typed: str, text: str) -> bool:
    terminal.send(typed)
    try:
        terminal.expect(text, 1.0)
    except AssertionError:
        return False
    return True


@pytest.mark.timeout(600)
def test_debian_bash_runs_in_a_terminal(engine: PrivateEngine, debian: str) -> None:
    words = [str(PROJECT / "jaula"), "run", "-it", "--rm", debian, "bash"]
    with Terminal(words, engine.environment()) as terminal:
        terminal.expect(r"root@[0-9a-f]{12}:/# ")
        terminal.send(". /etc/os-release; echo $ID\r")
        terminal.expect(r"[\r\n]debian\r\n")
        terminal.send("exit 3\r")
        assert terminal.wait() == 3


@pytest.mark.needs("docker")
def test_inspect_returns_dockers_document(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox) as name:
        document = json.loads(engine.cli("docker", "inspect", name).stdout)[0]
        own = json.loads(engine.cli("jaula", "inspect", name).stdout)[0]
        same_version = engine.request("GET", f"/v1.45/containers/{name}/json").json()
    assert same_version == document
    assert own.keys() == document.keys() | {"ImageManifestDescriptor"}  # of a newer version
    for key in ("Id", "Created", "Path", "Args", "State", "Image", "Name", "Driver", "Mounts"):
        assert key in document
    for key in ("HostConfig", "Config", "NetworkSettings", "LogPath", "RestartCount"):
        assert key in document


# 3. Namespaces


def test_every_namespace_of_a_container_is_its_own(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox) as name:
        process = containers.pid(engine, name)
        for kind in NAMESPACES:
            inside, outside = (
                os.readlink(f"/proc/{process}/ns/{kind}"),
                os.readlink(f"/proc/self/ns/{kind}"),
            )
            assert inside != outside, f"the {kind} namespace is the host's"
        first = engine.cli("jaula", "exec", name, "cat", "/proc/1/cmdline").stdout
        assert first == "sleep\x00600\x00"


def test_tree_draws_the_namespaces_that_change_at_each_process(
    engine: PrivateEngine, busybox: str
) -> None:
    with running(engine, busybox) as name:
        done = engine.cli("jaula", "tree", name)
        process = containers.pid(engine, name)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "sleep" in line)
    for kind in ("ipc", "mnt", "net", "pid", "user", "uts"):
        assert kind in line, f"{kind} not in {line!r} of process {process}"


# 4. Users


def test_every_container_maps_root_to_its_own_uid(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox) as one, running(engine, busybox) as two:
        ids = [
            int(containers.status(containers.pid(engine, c))["Uid"].split()[0]) for c in (one, two)
        ]
        assert engine.cli("jaula", "exec", one, "id", "-u").stdout.strip() == "0"
    assert all(uid >= 65536 for uid in ids)
    assert abs(ids[0] - ids[1]) >= 65536, "the ranges of two containers overlap"


def test_files_written_to_a_bind_mount_belong_to_the_invoking_user(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    containers.run(
        engine,
        busybox,
        "sh",
        "-c",
        "echo hi > /data/made; ls -ln /data",
        flags=("-v", f"{tmp_path}:/data"),
    )
    result = (tmp_path / "made").stat()
    assert (result.st_uid, result.st_gid) == (os.geteuid(), os.getegid())
    assert (tmp_path / "made").read_text() == "hi\n"


# 5. Limits

TOUCH_100_MB = ("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")


def test_a_memory_hog_is_killed_only_at_its_limit(engine: PrivateEngine, busybox: str) -> None:
    since, name = time.time(), containers.unique("oom")
    containers.run(engine, busybox, *TOUCH_100_MB)
    done = engine.cli("jaula", "run", "--name", name, "-m", "64mb", busybox, *TOUCH_100_MB)
    try:
        assert done.returncode == 137, done.stderr
        assert inspect(engine, name)["State"]["OOMKilled"] is True
        result = containers.events(engine, since, event="oom")
        attributes = [
            e["Actor"]["Attributes"] for e in result if e["Actor"]["Attributes"]["name"] == name
        ]
        assert attributes, "no event says that the container ran out of memory"
        text = json.dumps(attributes[0])
        assert str(64 * 2**20) in text, f"the limit is not in {text}"
        numbers = [int(word) for word in re.findall(r"\b\d{8,9}\b", text)]
        assert len(numbers) >= 2, f"the usage is not in {text}"
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize(
    ("flags", "controller", "v1", "v2", "expected"),
    [
        (("-m", "64m"), "memory", "memory.limit_in_bytes", "memory.max", ("67108864",)),
        (("--pids-limit", "33"), "pids", "pids.max", "pids.max", ("33",)),
        (("--cpus", "0.5"), "cpu", "cpu.cfs_quota_us", "cpu.max", ("50000", "50000 100000")),
        (("--cpuset-cpus", "0"), "cpuset", "cpuset.cpus", "cpuset.cpus", ("0",)),
        (("--cpu-shares", "512"), "cpu", "cpu.shares", "cpu.weight", ("512", "20", "59")),
        (
            ("-m", "64m", "--memory-reservation", "32m"),
            *("memory", "memory.soft_limit_in_bytes", "memory.low"),
            ("33554432",),
        ),
    ],
)
def test_a_limit_is_in_the_kernel(
    engine: PrivateEngine,
    busybox: str,
    flags: tuple[str, ...],
    controller: str,
    v1: str,
    v2: str,
    expected: tuple[str, ...],
) -> None:
    with running(engine, busybox, flags=flags) as name:
        process = containers.pid(engine, name)
        assert containers.cgroup_file(process, controller, v1, v2) in expected


@pytest.mark.needs("docker")
def test_stats_show_usage_and_limit(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox, flags=("-m", "64m")) as name:
        done = engine.cli("jaula", "stats", "--no-stream", name)
        real = engine.cli("docker", "stats", "--no-stream", name)
        # Two rounds of the live view, ended as a person would end it.
        words = [str(PROJECT / "jaula"), "cgtop"]
        with Terminal(words, engine.environment()) as terminal:
            terminal.expect(re.escape(name))
            terminal.send("\x03")
            terminal.wait()
    for output in (done, real):
        assert output.returncode == 0, output.stderr
        assert "CPU %" in output.stdout and "PIDS" in output.stdout
        assert re.search(rf"{name}.* / 64MiB", output.stdout), output.stdout


# 6. Capabilities


@pytest.mark.parametrize(
    ("flags", "mask"),
    [
        ((), DEFAULT_CAPABILITIES),
        (("--cap-drop", "net_raw"), "00000000a80405fb"),
        (("--cap-drop", "all", "--cap-add", "net_bind_service"), "0000000000000400"),
    ],
)
def test_the_capability_sets_are_exactly_these(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], mask: str
) -> None:
    with running(engine, busybox, flags=flags) as name:
        result = containers.status(containers.pid(engine, name))
    assert [result[key] for key in ("CapPrm", "CapEff", "CapBnd")] == [mask] * 3
    assert [result[key] for key in ("CapInh", "CapAmb")] == [NO_CAPABILITIES] * 2


def test_the_clock_and_the_interfaces_cannot_be_changed(
    engine: PrivateEngine, busybox: str
) -> None:
    for words in (
        ("date", "-s", "2001-01-01"),
        ("ip", "address", "add", "10.9.9.9/24", "dev", "lo"),
    ):
        done = engine.cli("jaula", "run", "--rm", busybox, *words)
        assert re.search("not permitted", done.stderr), done.stdout + done.stderr
    assert time.time() > 1_500_000_000


def test_ping_fails_without_net_raw(engine: PrivateEngine, busybox: str) -> None:
    ping = ("ping", "-c", "1", "-W", "2", "127.0.0.1")
    containers.run(engine, busybox, *ping)
    done = engine.cli("jaula", "run", "--rm", "--cap-drop", "net_raw", busybox, *ping)
    assert done.returncode != 0


def test_caps_decodes_a_mask(engine: PrivateEngine) -> None:
    done = engine.cli("jaula", "caps", "a80425fb")
    assert done.returncode == 0
    names = set(re.findall(r"\bcap_[a-z_]+", done.stdout.lower()))
    assert len(names) == 14
    assert {"cap_chown", "cap_net_raw", "cap_setfcap", "cap_audit_write"} <= names


# 7. Copy on write


def test_ten_containers_share_layers_and_have_separate_writes(
    engine: PrivateEngine, busybox: str
) -> None:
    layers = _layers(engine)
    names = [containers.unique("cow") for _ in range(10)]
    try:
        for number, name in enumerate(names):
            done = engine.cli(
                "jaula",
                "run",
                "--name",
                name,
                busybox,
                "sh",
                "-c",
                f"echo {number} > /mine{number}",
            )
            assert done.returncode == 0, done.stderr
        assert _layers(engine) == layers, "a container made a layer"
        for number, name in enumerate(names):
            assert engine.cli("jaula", "diff", name).stdout.split() == ["A", f"/mine{number}"]
    finally:
        kept = [_directory(engine, name) for name in names]
        assert engine.cli("jaula", "rm", "-f", *names).returncode == 0
    assert not [path for path in kept if path.exists()], "a removed container keeps its writes"


def _layers(engine: PrivateEngine) -> set[str]:
    return set(os.listdir(engine.root / "lib" / "layers"))


def _directory(engine: PrivateEngine, name: str) -> Path:
    return engine.root / "lib" / "containers" / str(inspect(engine, name)["Id"])


# 8. Portability


def test_an_image_survives_save_and_load(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    name = f"{containers.unique('saved')}:one"
    before = inspect_image(engine, busybox)["Id"]
    assert engine.cli("jaula", "tag", busybox, name).returncode == 0
    assert engine.cli("jaula", "save", "-o", str(archive), name).returncode == 0
    assert engine.cli("jaula", "rmi", name).returncode == 0
    assert name.split(":")[0] not in engine.cli("jaula", "images").stdout
    done = engine.cli("jaula", "load", "-i", str(archive))
    assert done.returncode == 0 and name in done.stdout, done.stdout + done.stderr
    assert inspect_image(engine, name)["Id"] == before
    assert containers.run(engine, name, "echo", "hi") == "hi\n"
    assert engine.cli("jaula", "history", name).stdout.count("\n") >= 2
    engine.cli("jaula", "rmi", name)


def inspect_image(engine: PrivateEngine, name: str) -> dict[str, object]:
    document: dict[str, object] = json.loads(engine.cli("jaula", "image", "inspect", name).stdout)[
        0
    ]
    return document


def test_a_file_system_survives_export_and_import(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    archive, container = tmp_path / "fs.tar", containers.unique()
    name = f"{containers.unique('imported')}:latest"
    engine.cli("jaula", "run", "--name", container, busybox, "sh", "-c", "echo kept > /kept")
    try:
        done = engine.cli("jaula", "export", "-o", str(archive), container)
        assert done.returncode == 0, done.stderr
        done = engine.cli("jaula", "import", "-c", "CMD cat /kept", str(archive), name)
        assert done.returncode == 0, done.stderr
        assert containers.run(engine, name) == "kept\n"
    finally:
        engine.request("DELETE", f"/containers/{container}?force=1")
        engine.cli("jaula", "rmi", name)


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_skopeo_reads_and_writes_the_archives(
    engine: PrivateEngine, busybox: str, tmp_path: Path, kind: str
) -> None:
    saved, copied = tmp_path / "saved.tar", tmp_path / "copied.tar"
    name = f"localhost/{containers.unique('skopeo')}:two"
    engine.cli("jaula", "tag", busybox, name)
    assert engine.cli("jaula", "save", "-o", str(saved), name).returncode == 0
    engine.cli("jaula", "rmi", name)
    subprocess.run(
        [
            *("skopeo", "--insecure-policy", "copy", "--quiet"),
            *(f"{kind}:{saved}", f"{kind}:{copied}:{name}"),
        ],
        check=True,
        timeout=100,
    )
    done = engine.cli("jaula", "load", "-i", str(copied))
    assert done.returncode == 0, done.stderr
    assert containers.run(engine, name, "echo", "hi") == "hi\n"
    engine.cli("jaula", "rmi", name)


@pytest.mark.needs("dockerd")
def test_docker_and_jaula_load_each_others_archives(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    saved, again = tmp_path / "saved.tar", tmp_path / "again.tar"
    name = f"{containers.unique('docker')}:three"
    engine.cli("jaula", "tag", busybox, name)
    assert engine.cli("jaula", "save", "-o", str(saved), name).returncode == 0
    engine.cli("jaula", "rmi", name)
    base = Path(tempfile.mkdtemp(prefix="jlt"))  # short: it is part of a socket's address
    daemon, host = _dockerd(base)
    try:
        for words in (("load", "-i", str(saved)), ("save", "-o", str(again), name)):
            done = subprocess.run(["docker", "-H", host, *words], capture_output=True, timeout=60)
            assert done.returncode == 0, done.stderr
    finally:
        daemon.terminate()
        daemon.wait(30)
        shutil.rmtree(base)
    done = engine.cli("jaula", "load", "-i", str(again))
    assert done.returncode == 0, done.stderr
    assert containers.run(engine, name, "echo", "hi") == "hi\n"
    engine.cli("jaula", "rmi", name)


def _dockerd(base: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a private docker daemon without a network; it only loads and saves."""
    host = f"unix://{base}/docker.sock"
    program = shutil.which("dockerd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert program, "dockerd is not installed"
    with (base / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                *("unshare", "--mount", program),  # it mounts its directory on itself
                *("--data-root", str(base / "lib"), "--exec-root", str(base / "run")),
                *("--host", host, "--pidfile", str(base / "pid")),
                *("--bridge", "none", "--iptables=false", "--storage-driver", "vfs"),
            ],
            stdout=log,
            stderr=log,
            env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"},
        )
    ask = ["docker", "-H", host, "version"]
    eventually(lambda: subprocess.run(ask, capture_output=True).returncode == 0, "dockerd", 30)
    return daemon, host


# 9. Proof


def test_verify_passes_for_a_default_container(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox, flags=("-m", "64m")) as name:
        done = engine.cli("jaula", "verify", name)
    assert done.returncode == 0, done.stdout + done.stderr
    for layer in (
        "namespace",
        "user",
        "cgroup",
        "capabilities",
        "seccomp",
        "new_priv",
        "lsm",
        "masked",
        "mount",
        "device",
        "network",
    ):
        assert layer in done.stdout.lower().replace(" ", "_").replace(
            "no_new_privileges", "new_priv"
        )
    assert "FAILS" not in done.stdout


def test_verify_names_each_relaxation(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox, flags=("--security-opt", "seccomp=unconfined")) as name:
        done = engine.cli("jaula", "verify", name)
    assert re.search(r"(?i)seccomp.*relaxed", done.stdout), done.stdout


def test_verify_detects_a_protection_removed_outside_the_engine(
    engine: PrivateEngine, busybox: str
) -> None:
    with running(engine, busybox) as name:
        assert engine.cli("jaula", "verify", name).returncode == 0
        process = containers.pid(engine, name)
        # With the host's rights, inside the container's mounts: a file over the mask.
        lift = ("busybox", "mount", "-o", "bind", "/etc/passwd", "/proc/keys")
        subprocess.run(["nsenter", "-t", str(process), "-m", *lift], check=True)
        done = engine.cli("jaula", "verify", name)
    assert done.returncode != 0
    assert re.search(r"(?i)mask.*FAILS", done.stdout), done.stdout


def test_verify_detects_a_removed_limit(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox, flags=("--pids-limit", "50")) as name:
        process = containers.pid(engine, name)
        for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("pids", ""):
                directory = Path("/sys/fs/cgroup") / controllers / path.lstrip("/")
                if (directory / "pids.max").exists():
                    (directory / "pids.max").write_text("max")
        done = engine.cli("jaula", "verify", name)
    assert done.returncode != 0
    assert re.search(r"(?i)pids.*FAILS", done.stdout), done.stdout


# And the real docker command line on the same socket


@pytest.mark.needs("docker")
def test_the_docker_command_line_works_on_the_socket(engine: PrivateEngine, busybox: str) -> None:
    done = engine.cli("docker", "run", "--rm", busybox, "echo", "hi")
    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr
    piped = engine.cli("docker", "run", "-i", "--rm", busybox, "cat", input="all of it")
    assert (piped.returncode, piped.stdout) == (0, "all of it"), piped.stderr
    with running(engine, busybox, "sh", "-c", "echo logged; exec sleep 600") as name:
        assert engine.cli("docker", "exec", name, "echo", "in").stdout == "in\n"
        eventually(lambda: engine.cli("docker", "logs", name).stdout == "logged\n", "the log")
        assert engine.cli("docker", "exec", name, "sh", "-c", "exit 5").returncode == 5
        assert name in engine.cli("docker", "ps").stdout
        assert engine.cli("docker", "stop", "-t", "0", name).returncode == 0
