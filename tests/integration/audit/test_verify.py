"""verify passes for real containers, names relaxations, and fails when a protection is removed.

A protection is removed outside the engine: in the kernel, through the container's namespaces or
cgroups, or in a request that a container does not match, as with a broken engine.
"""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import jaula
from harness import containers
from harness.audits import Audited
from harness.engine import PrivateEngine
from jaula.errors import Conflict
from jaula.features.verify.checks import masked_paths
from jaula.features.verify.model.result import Result, Verdict, passed
from jaula.features.verify.verify import render, verify
from jaula.kernel import mounts, namespaces
from jaula.kernel.mounts import MS
from jaula.security.lsm import detect
from jaula.security.masked_paths import MASKED_PATHS
from jaula.spec import runtime_spec
from jaula.spec.annotations import VERSION_ANNOTATION
from jaula.spec.runtime_spec import Spec

LANDLOCK = {"landlock"} if detect.landlock() > 1 else set()  # whose default such a flag lifts

Start = Callable[..., "Proof"]


class Proof:
    """A running container with the two documents of its request."""

    def __init__(self, engine: PrivateEngine, container_id: str) -> None:
        self.inspect: dict[str, Any] = engine.request(
            "GET", f"/containers/{container_id}/json"
        ).json()
        self.spec: Spec = runtime_spec.decode(
            engine.request("GET", f"/jaula/containers/{container_id}/spec").body
        )
        self.pid: int = self.inspect["State"]["Pid"]

    def rows(self) -> dict[str, Result]:
        result = verify(self.inspect, self.spec)
        assert len({row.id for row in result}) == len(result), "two rows of one name"
        return {row.id: row for row in result}

    def failing(self) -> set[str]:
        return {name for name, row in self.rows().items() if row.verdict is Verdict.FAILS}

    def relaxed(self) -> set[str]:
        return {name for name, row in self.rows().items() if row.verdict is Verdict.RELAXED}

    def inside(self, act: Callable[[], None]) -> None:
        """Do something in the container's mount namespace with the host's powers."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                namespaces.setns(namespaces.open_namespace(self.pid, "mnt"))
                act()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0

    def unmount(self, path: str) -> None:
        self.inside(lambda: mounts.umount2(path))

    def mount(self, source: str, path: str, kind: str | None, flags: MS) -> None:
        self.inside(lambda: mounts.mount(source, path, kind, flags))


@pytest.fixture
def start(engine: PrivateEngine, busybox: str) -> Iterator[Start]:
    made: list[str] = []

    def run(*flags: str, command: tuple[str, ...] = ("sleep", "1000")) -> Proof:
        done = engine.cli("jaula", "run", "-d", *flags, busybox, *command)
        assert done.returncode == 0, done.stderr
        made.append(done.stdout.strip())
        return Proof(engine, made[-1])

    try:
        yield run
    finally:
        for container in made:
            engine.request("DELETE", f"/containers/{container}?force=1&v=1")


def explain(rows: dict[str, Result]) -> str:
    return render(list(rows.values()))


def test_every_row_passes_for_a_default_container(start: Start) -> None:
    rows = start().rows()
    assert {row.verdict for row in rows.values()} == {Verdict.HOLDS}, explain(rows)
    assert passed(list(rows.values()))
    assert {row.layer for row in rows.values()} >= {
        "namespaces", "users", "cgroups", "capabilities", "seccomp", "no_new_privs", "lsm",
        "masks", "mounts", "devices", "network", "rlimits", "descriptors",
    }  # fmt: skip


@pytest.mark.parametrize(
    "flags",
    [
        ("-m", "64m", "--cpus", "0.5", "--pids-limit", "50", "--cpu-shares", "512"),
        ("--cpuset-cpus", "0", "-m", "32m", "--memory-swap", "32m"),
        ("--network", "none", "--read-only", "--security-opt", "no-new-privileges"),
        ("--user", "1234:4321",),
        ("--cap-drop", "all"),
        ("--tmpfs", "/run:size=1m", "-v", "/data", "--ulimit", "nofile=100:200"),
        ("--init",),
        ("-t",),
        ("-i",),
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_row_passes_for_a_container_with_more_limits(
    start: Start, flags: tuple[str, ...]
) -> None:
    rows = start(*flags).rows()
    assert {row.verdict for row in rows.values()} == {Verdict.HOLDS}, explain(rows)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--security-opt", "seccomp=unconfined"), {"seccomp", *LANDLOCK}),
        (("--userns", "host"), {"namespace user", "uid_map", "gid_map", "host user"}),
        (("--network", "host"), {"namespace net", "interfaces"}),
        (("--pid", "host"), {"namespace pid", *LANDLOCK}),
        (("--uts", "host"), {"namespace uts"}),
        (("--ipc", "host"), {"namespace ipc"}),
        (("--cgroupns", "host"), {"namespace cgroup"}),
        (("--pids-limit", "-1"), {"pids limit"}),
        (("--security-opt", "systempaths=unconfined"), {"masked paths", "read-only paths"}),
        (
            ("--cap-add", "sys_time"),
            {"capabilities permitted", "capabilities effective", "capabilities bounding"},
        ),
        (
            ("--privileged",),
            {
                "capabilities permitted", "capabilities effective", "capabilities bounding",
                "seccomp", "masked paths", "read-only paths", "cgroup tree", *LANDLOCK,
            },
        ),
        (("--device", "/dev/null:/dev/other:r"), {"device nodes", "device rules"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_only_the_requested_relaxations_are_relaxed(
    start: Start, flags: tuple[str, ...], expected: set[str]
) -> None:
    proof = start(*flags)
    rows = proof.rows()
    assert proof.failing() == set(), explain(rows)
    requested = {"relaxations"} if rows["relaxations"].effective != "none" else set()
    assert proof.relaxed() == expected | requested, explain(rows)
    assert passed(list(rows.values())), explain(rows)
    named = " ".join(row.requested for row in rows.values() if row.verdict is Verdict.RELAXED)
    assert flags[-1].partition(":")[0].split("=")[0].upper() in named.upper()


def test_a_joined_network_is_named(start: Start) -> None:
    first = start()
    second = start("--network", f"container:{first.inspect['Id']}")
    rows = second.rows()
    assert second.failing() == set(), explain(rows)
    assert "namespace net" in second.relaxed()


def test_a_first_process_that_called_chroot_passes(start: Start) -> None:
    script = "mkdir -p /jail/bin; cp /bin/sleep /jail/bin; exec chroot /jail /bin/sleep 1000"
    proof = start(command=("sh", "-c", script))
    inside = lambda: os.listdir(f"/proc/{proof.pid}/root") == ["bin"]  # noqa: E731
    containers.eventually(inside, "it has changed its root")
    assert proof.failing() == set(), explain(proof.rows())
    proof.unmount("/proc/keys")
    assert proof.failing() == {"masked paths"}


def test_a_volume_behind_a_symbolic_link_of_the_image_passes(
    engine: PrivateEngine, start: Start
) -> None:
    first = start(command=("sh", "-c", "ln -s /tmp /link; sleep 1000"))
    linked = lambda: os.path.lexists(f"/proc/{first.pid}/root/link")  # noqa: E731
    containers.eventually(linked, "the link exists")
    image = containers.unique("linked")
    assert engine.cli("jaula", "commit", first.inspect["Id"], image).returncode == 0
    try:
        with containers.running(engine, image, flags=("-v", "/link/data")) as name:
            proof = Proof(engine, name)
            assert proof.failing() == set(), explain(proof.rows())
            proof.mount("x", "/tmp/data", "tmpfs", MS.NOSUID | MS.NODEV)
            assert proof.failing() == {"mount identity", "volume /link/data"}
    finally:
        engine.cli("jaula", "rmi", image)


# -- layers stripped in the kernel -----------------------------------------------------------


def cgroup_file(proof: Proof, controller: str, name: str) -> Path:
    for line in Path(f"/proc/{proof.pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return Path("/sys/fs/cgroup", controller) / path.lstrip("/") / name
        if not names and (Path("/sys/fs/cgroup") / path.lstrip("/") / "cgroup.procs").exists():
            unified = Path("/sys/fs/cgroup") / path.lstrip("/") / name
    return unified


def test_a_removed_mask_fails(start: Start) -> None:
    proof = start()
    proof.unmount("/proc/keys")
    assert proof.failing() == {"masked paths"}
    assert "/proc/keys" in proof.rows()["masked paths"].effective


def test_a_mask_with_content_fails(start: Start) -> None:
    proof = start()
    proof.mount("/proc/version", "/proc/keys", None, MS.BIND)
    assert "masked paths" in proof.failing()


def test_a_read_only_path_that_is_made_writable_fails(start: Start) -> None:
    proof = start()
    proof.unmount("/proc/sys")
    assert proof.failing() == {"read-only paths"}


def test_an_unrequested_mount_fails(start: Start) -> None:
    proof = start()
    proof.mount("extra", "/home", "tmpfs", MS.NOSUID)
    assert proof.failing() == {"mount inventory"}
    assert "/home" in proof.rows()["mount inventory"].effective


def test_a_root_that_is_made_writable_fails(start: Start) -> None:
    proof = start("--read-only")
    proof.mount("", "/", None, MS.REMOUNT | MS.BIND)
    assert "root read-only" in proof.failing()


def test_a_mount_that_is_made_shared_fails(start: Start) -> None:
    proof = start()
    proof.mount("", "/dev/shm", None, MS.SHARED)
    assert proof.failing() == {"propagation"}


def test_a_volume_that_loses_its_flags_fails(start: Start) -> None:
    proof = start("-v", "/data")
    proof.mount("", "/data", None, MS.REMOUNT | MS.BIND)
    assert proof.failing() == {"volume /data"}


def test_a_replaced_bind_fails(start: Start, tmp_path: Path) -> None:
    (tmp_path / "asked").mkdir()
    proof = start("-v", f"{tmp_path}/asked:/b:ro")
    assert proof.failing() == set()
    proof.mount("/etc", "/b", None, MS.BIND)
    assert "bind /b" in proof.failing()


def test_a_bind_that_is_made_writable_fails(start: Start, tmp_path: Path) -> None:
    proof = start("-v", f"{tmp_path}:/b:ro")
    proof.mount("", "/b", None, MS.REMOUNT | MS.BIND)
    assert proof.failing() == {"bind /b"}


def test_an_unrequested_device_node_fails(start: Start) -> None:
    proof = start()
    path = f"/proc/{proof.pid}/root/dev/memory"
    os.mknod(path, 0o20666, os.makedev(1, 1))
    assert proof.failing() == {"device nodes"}
    assert "/dev/memory" in proof.rows()["device nodes"].effective


@pytest.mark.parametrize(
    ("controller", "v1", "v2", "value", "row"),
    [
        ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max", "1073741824",
         "memory and swap"),
        ("pids", "pids.max", "pids.max", "max", "pids limit"),
        ("pids", "pids.max", "pids.max", "60", "pids limit"),
        ("cpu", "cpu.cfs_quota_us", "cpu.max", "-1", "cpu limit"),
        ("cpu", "cpu.shares", "cpu.weight", "3000", "cpu shares"),
        ("devices", "devices.allow", "", "c 1:1 r", "device rules"),
        ("devices", "devices.allow", "", "a", "device rules"),
    ],
)  # fmt: skip
def test_a_removed_limit_fails(
    start: Start, controller: str, v1: str, v2: str, value: str, row: str
) -> None:
    proof = start("-m", "64m", "--cpus", "0.5", "--pids-limit", "50")
    file = cgroup_file(proof, controller, v1)
    if not file.exists():
        file = cgroup_file(proof, controller, v2)
        value = "max" if value == "-1" else value
        if not v2:
            pytest.skip("device rules are BPF programs on cgroup v2")
    file.write_text(value)
    assert proof.failing() == {row}


def test_a_process_moved_out_of_its_cgroup_fails(start: Start) -> None:
    proof = start("-m", "64m")
    file = cgroup_file(proof, "memory", "cgroup.procs")
    elsewhere = file.parents[1] / f"moved-{proof.pid}"  # on v2 the parent may hold no process
    elsewhere.mkdir()
    try:
        (elsewhere / "cgroup.procs").write_text(str(proof.pid))
        assert {"cgroup", "memory limit"} <= proof.failing()
    finally:
        file.write_text(str(proof.pid))
        elsewhere.rmdir()


def test_an_unrequested_interface_fails(start: Start) -> None:
    proof = start("--network", "none")
    subprocess.run(
        ["nsenter", "-t", str(proof.pid), "-n", "ip", "link", "add", "sneak", "type", "bridge"],
        check=True,
        timeout=10,
    )
    assert proof.failing() == {"interfaces"}


def test_an_unassigned_address_fails(start: Start) -> None:
    proof = start()
    enter = ["nsenter", "-t", str(proof.pid), "-n"]
    subprocess.run(
        [*enter, "ip", "address", "add", "203.0.113.9/32", "dev", "lo"], check=True, timeout=10
    )
    assert proof.failing() == {"addresses"}


def test_a_raised_limit_of_open_files_fails(start: Start) -> None:
    proof = start("--ulimit", "nofile=100:200")
    raised = subprocess.run(
        ["prlimit", "--pid", str(proof.pid), "--nofile=100:400"],
        capture_output=True,
        timeout=10,
        check=False,
    )
    if raised.returncode:
        pytest.skip("this root may not raise limits")
    assert proof.failing() == {"nofile"}


# -- requests that the container does not match ----------------------------------------------


def change(proof: Proof, key: str, value: Any) -> Proof:
    other = copy.copy(proof)
    other.inspect = copy.deepcopy(proof.inspect)
    other.inspect["HostConfig"][key] = value
    return other


def test_a_container_without_a_requested_layer_fails(start: Start) -> None:
    """Compare a container relaxed by flags with requests without these flags."""
    proof = start("--privileged", "--userns=host", "--pid=host", "--network=host", "--ipc=host",
                  "--uts=host", "--cgroupns=host", "--pids-limit=-1")  # fmt: skip
    expected = {
        "UsernsMode": {"namespace user", "uid_map", "gid_map", "host user"},
        "PidMode": {"namespace pid"},
        "NetworkMode": {"namespace net", "interfaces"},
        "IpcMode": {"namespace ipc"},
        "UTSMode": {"namespace uts"},
        "CgroupnsMode": {"namespace cgroup"},
        "PidsLimit": {"pids limit"},
        "Privileged": {
            "capabilities permitted", "capabilities effective", "capabilities bounding", "seccomp",
            "masked paths", "read-only paths", "cgroup tree", "device nodes", "device rules",
        },
    }  # fmt: skip
    for key, rows in expected.items():
        value: Any = {"PidsLimit": 100, "Privileged": False, "NetworkMode": "bridge"}.get(key, "")
        changed = change(proof, key, value)
        if key == "Privileged":
            changed.inspect["HostConfig"] |= {"MaskedPaths": None, "ReadonlyPaths": None}
        missing = rows - changed.failing()
        assert not missing, f"{key}: {explain(changed.rows())}"


def test_capabilities_beyond_the_request_fail(start: Start) -> None:
    failing = change(start(), "CapDrop", ["net_raw"]).failing()
    assert failing == {
        "capabilities permitted", "capabilities effective", "capabilities bounding"
    }  # fmt: skip


def test_no_new_privileges_that_are_not_set_fail(start: Start) -> None:
    proof = change(start(), "SecurityOpt", ["no-new-privileges"])
    assert proof.failing() == {"no_new_privs"}


def test_an_id_map_other_than_the_specs_fails(start: Start) -> None:
    proof = start()
    linux = proof.spec.linux
    assert linux is not None
    other = msgspec.structs.replace(linux.uid_mappings[0], host_id=5)
    proof.spec = msgspec.structs.replace(
        proof.spec, linux=msgspec.structs.replace(linux, uid_mappings=(other,))
    )
    assert proof.failing() == {"uid_map"}


def test_an_exited_container_cannot_be_verified(start: Start) -> None:
    proof = start(command=("true",))
    proof.inspect["State"]["Pid"] = 2**22 - 1
    with pytest.raises(Conflict, match="no longer exists"):
        verify(proof.inspect, proof.spec)


def test_an_open_file_outside_the_container_fails(tmp_path: Path) -> None:
    from jaula.features.verify.checks import open_files
    from jaula.features.verify.model.container import AuditedContainer

    script = "mount -t tmpfs x /mnt && echo mounted && exec sleep 100"
    with open(tmp_path / "host-file", "w") as file:  # a descriptor that the child inherits
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script],
            pass_fds=(file.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"mounted\n", process.wait()
            container = AuditedContainer({"State": {"Pid": process.pid}}, Spec())
            (row,) = open_files.check(container)
            assert row.verdict is Verdict.FAILS
            assert "host-file" in row.effective
        finally:
            process.kill()
            process.communicate()


# -- the command -----------------------------------------------------------------------------


def test_the_command_prints_the_table_and_fails_when_a_row_does(
    engine: PrivateEngine, start: Start
) -> None:
    proof = start()
    done = engine.cli("jaula", "verify", proof.inspect["Id"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERDICT" in done.stdout
    proof.unmount("/proc/keys")
    done = engine.cli("jaula", "verify", proof.inspect["Id"])
    assert done.returncode == 1
    assert "FAILS" in done.stdout


@pytest.mark.parametrize(
    ("version", "masked", "rules"),
    [
        (jaula.__version__, Verdict.FAILS, None),
        ("0.1.0", Verdict.HOLDS, Verdict.RELAXED),
        (None, Verdict.FAILS, None),
    ],
)
def test_a_container_is_judged_by_the_rules_of_its_start(
    engine: PrivateEngine,
    busybox: str,
    monkeypatch: pytest.MonkeyPatch,
    version: str | None,
    masked: Verdict,
    rules: Verdict | None,
) -> None:
    """An engine that was upgraded masks a path more, and its inspect document has it."""
    monkeypatch.setattr(masked_paths, "MASKED_PATHS", (*MASKED_PATHS, "/proc/version"))
    with containers.running(engine, busybox) as name:
        audited = Audited(engine, name)
        annotations = dict(audited.spec.annotations)
        assert annotations.pop(VERSION_ANNOTATION) == jaula.__version__
        if version is not None:
            annotations[VERSION_ANNOTATION] = version
        spec = msgspec.structs.replace(audited.spec, annotations=annotations)
        audited.inspect["HostConfig"]["MaskedPaths"].append("/proc/version")
        audited.snapshot.networks = engine.request("GET", "/networks").json()
        rows = {row.id: row for row in verify(audited.inspect, spec, snapshot=audited.snapshot)}
    assert rows["masked paths"].verdict is masked
    assert (rows["rules"].verdict if "rules" in rows else None) is rules
    others = {name for name, row in rows.items() if row.verdict is Verdict.FAILS}
    assert others <= {"masked paths"}
