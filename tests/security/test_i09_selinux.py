"""I9, SELinux enforcing: type and categories limit containers to their own files.

In tests of files, root of the container is root of the host (``--userns host``), so discretionary
access control alone would allow the access.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine
from harness.lsm_denials import Denials

pytestmark = [
    pytest.mark.vm,
    pytest.mark.usefixtures("print_denials"),
    pytest.mark.needs("/sys/fs/selinux/enforce"),
]

ROOT = ("--userns", "host")
TYPE, FILES = "container_t", "container_file_t"


def label(path: str | Path) -> str:
    """Return the label of a file or of a link itself."""
    return os.getxattr(path, "security.selinux", follow_symlinks=False).rstrip(b"\0").decode()


def current(process: int) -> str:
    return Path(f"/proc/{process}/attr/current").read_text().rstrip("\0\n")


@pytest.fixture(autouse=True, scope="module")
def _enforcing() -> None:
    assert Path("/sys/fs/selinux/enforce").read_text() == "1"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Return a world-accessible directory of the host with a file in it."""
    tree = tmp_path / "tree"
    tree.mkdir(mode=0o777)
    tree.chmod(0o777)
    (tree / "secret").write_text("of the host")
    (tree / "secret").chmod(0o666)
    return tree


def test_every_container_has_its_own_label(engine: PrivateEngine, busybox: str) -> None:
    with (
        containers.running(engine, busybox) as one,
        containers.running(engine, busybox) as other,
    ):
        labels = []
        for name in (one, other):
            document = containers.inspect(engine, name)
            process = document["State"]["Pid"]
            assert current(process) == document["ProcessLabel"]
            assert document["ProcessLabel"].startswith(f"system_u:system_r:{TYPE}:s0:c")
            assert document["MountLabel"].startswith(f"system_u:object_r:{FILES}:s0:c")
            assert document["MountLabel"].split(":")[3:] == document["ProcessLabel"].split(":")[3:]
            labels.append(document["ProcessLabel"])
            done = engine.cli("jaula", "exec", name, "cat", "/proc/self/attr/current")
            assert done.stdout.rstrip("\0\n") == document["ProcessLabel"], done.stderr
        assert labels[0] != labels[1]


def test_the_root_and_every_new_file_system_have_the_containers_label(
    engine: PrivateEngine, busybox: str
) -> None:
    flags = ("--tmpfs", "/scratch", "-t")
    with containers.running(engine, busybox, flags=flags) as name:
        document = containers.inspect(engine, name)
        root = f"/proc/{document['State']['Pid']}/root"
        for path in (
            "/",
            "/bin/busybox",
            "/dev",
            "/dev/null",
            "/dev/shm",
            "/scratch",
            "/etc/hosts",
        ):
            assert label(root + path) == document["MountLabel"], path
        write = "for d in / /dev /dev/shm /scratch /etc; do echo x > $d/x || exit 1; done"
        write += "; cat /etc/hosts"
        done = engine.cli("jaula", "exec", name, "sh", "-c", write)
        assert done.returncode == 0, done.stderr


def test_a_debug_session_has_the_containers_labels(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        document = containers.inspect(engine, name)
        shown = "cat /proc/self/attr/current; /.debug/bin/cat /etc/hostname; echo x > /etc/x"
        done = engine.cli("jaula", "debug", name, "sh", "-c", shown)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(document["ProcessLabel"])
        path = f"/jaula/containers/{name}/debug"
        session = engine.request("POST", path, {"Cmd": ["sleep", "60"]}).json()["Id"]
        engine.request("POST", f"/exec/{session}/start", {"Detach": True})
        process = engine.request("GET", f"/exec/{session}/json").json()["Pid"]
        assert current(process) == document["ProcessLabel"]
        for file in ("/", "/.debug/bin/busybox"):
            assert label(f"/proc/{process}/root{file}") == document["MountLabel"], file
    done = engine.cli("jaula", "debug", busybox, "cat", "/proc/self/attr/current")
    assert done.returncode == 0, done.stderr
    assert f":{TYPE}:" in done.stdout


def test_a_mount_that_an_edit_adds_is_labelled(
    engine: PrivateEngine, busybox: str, shared: Path
) -> None:
    with containers.running(engine, busybox, flags=ROOT) as name:
        theirs = containers.inspect(engine, name)["MountLabel"]
        done = engine.cli("jaula", "edit", "--mount-add", f"{shared}:/m:Z", name)
        assert done.returncode == 0, done.stderr
        assert label(shared / "secret") == theirs
        assert engine.cli("jaula", "exec", name, "cat", "/m/secret").stdout == "of the host"
        done = engine.cli("jaula", "edit", "--mount-add", "/etc:/e:z", name)
        assert done.returncode != 0


def test_output_users_and_capabilities_work(engine: PrivateEngine, busybox: str) -> None:
    done = engine.cli("jaula", "run", "--rm", "-i", busybox, "cat", input="through pipes\n")
    assert (done.returncode, done.stdout) == (0, "through pipes\n"), done.stderr
    script = "touch /f && chown 5:5 /f && chmod 4755 /f && id -u && echo ok > /dev/stdout"
    done = engine.cli("jaula", "run", "--rm", busybox, "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "0\nok\n"), done.stderr
    done = engine.cli("jaula", "run", "--rm", "-u", "1000", busybox, "id", "-u")
    assert (done.returncode, done.stdout) == (0, "1000\n"), done.stderr
    script = "echo out > /proc/self/fd/1; echo err > /proc/self/fd/2"
    done = engine.cli("jaula", "run", "--rm", busybox, "sh", "-c", script)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    nnp = ("--security-opt", "no-new-privileges")
    done = engine.cli("jaula", "run", "--rm", *nnp, busybox, "cat", "/proc/self/attr/current")
    assert done.returncode == 0, done.stderr
    assert f":{TYPE}:" in done.stdout


def test_a_file_of_the_host_cannot_be_accessed(
    engine: PrivateEngine, busybox: str, shared: Path
) -> None:
    denials = Denials()
    bind = ("-v", f"{shared}:/m")
    with containers.running(engine, busybox, flags=(*ROOT, *bind)) as name:
        for command in ("cat /m/secret", "echo x > /m/secret", "echo x > /m/new", "rm /m/secret"):
            done = engine.cli("jaula", "exec", name, "sh", "-c", command)
            assert done.returncode != 0, command
            assert "Permission denied" in done.stderr, done.stderr
        mine = current(containers.pid(engine, name))
    assert denials.containing("avc:", f"scontext={mine}", 'name="secret"', "permissive=0")
    assert (shared / "secret").read_text() == "of the host"


def test_files_of_another_container_cannot_be_accessed(
    engine: PrivateEngine, busybox: str, shared: Path
) -> None:
    with containers.running(engine, busybox, flags=(*ROOT, "-v", f"{shared}:/m:Z")) as owner:
        done = engine.cli("jaula", "exec", owner, "sh", "-c", "cat /m/secret; echo own > /m/own")
        assert (done.returncode, done.stdout) == (0, "of the host"), done.stderr
        theirs = containers.inspect(engine, owner)["MountLabel"]
        assert label(shared / "secret") == label(shared / "own") == theirs
        denials = Denials()
        # A directory's refusal is one that policies do not log, so the file is tried by itself too
        flags = (*ROOT, "-v", f"{shared}:/m", "-v", f"{shared}/secret:/s")
        with containers.running(engine, busybox, flags=flags) as other:
            for file in ("/m/secret", "/m/own", "/s"):
                done = engine.cli("jaula", "exec", other, "cat", file)
                assert done.returncode != 0
                assert "Permission denied" in done.stderr
            mine = current(containers.pid(engine, other))
        assert denials.containing("avc:", f"scontext={mine}", f"tcontext={theirs}", "permissive=0")


def test_a_volume_with_z_is_shared_by_all_containers(
    engine: PrivateEngine, busybox: str, shared: Path
) -> None:
    flags = (*ROOT, "-v", f"{shared}:/m:z", "-v", "vol:/v")
    with containers.running(engine, busybox, flags=flags) as one:
        assert (
            engine.cli(
                "jaula", "exec", one, "sh", "-c", "echo 1 > /m/new && echo 1 > /v/new"
            ).returncode
            == 0
        )
        assert label(shared / "new").endswith(f":{FILES}:s0")
        with containers.running(engine, busybox, flags=flags) as other:
            done = engine.cli("jaula", "exec", other, "cat", "/m/secret", "/m/new", "/v/new")
            assert (done.returncode, done.stdout) == (0, "of the host1\n1\n"), done.stderr
    engine.cli("jaula", "volume", "rm", "vol")


def test_relabelling_follows_no_link_and_opens_no_file(
    engine: PrivateEngine, busybox: str, shared: Path, canary: Path
) -> None:
    before = label(canary / "secret")
    (shared / "link").symlink_to(canary / "secret")
    (shared / "directory").symlink_to(canary)
    os.mkfifo(shared / "fifo")
    flags = (*ROOT, "-v", f"{shared}:/m:z")
    assert containers.run(engine, busybox, "echo", "ran", flags=flags) == "ran\n"
    assert label(canary / "secret") == before
    assert label(shared / "fifo").endswith(f":{FILES}:s0")
    assert label(shared / "link").endswith(f":{FILES}:s0")


@pytest.mark.parametrize(
    "source", ["/", "/etc", "/etc/ssl", "/usr", "/home", "/root", "/var", "/run", "/proc"]
)
@pytest.mark.parametrize("mode", ["z", "ro,Z"])
def test_a_system_directory_is_never_relabelled(
    engine: PrivateEngine, busybox: str, source: str, mode: str
) -> None:
    before = label("/etc/passwd")
    made = engine.cli("jaula", "ps", "-aq").stdout
    done = engine.cli("jaula", "run", "--rm", "-v", f"{source}:/m:{mode}", busybox, "true")
    assert done.returncode == 125
    assert "SELinux relabeling of" in done.stderr
    assert engine.cli("jaula", "ps", "-aq").stdout == made
    assert label("/etc/passwd") == before


def test_a_link_to_a_system_directory_is_refused(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/etc")
    done = engine.cli("jaula", "run", "--rm", "-v", f"{tmp_path}/link:/m:z", busybox, "true")
    assert done.returncode == 125
    assert "SELinux relabeling of /etc is not allowed" in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--privileged",),
        ("--pid", "host"),
        ("--ipc", "host"),
        ("--security-opt", "label=disable"),
        ("--security-opt", "label:disable"),
    ],
)
def test_containers_in_host_namespaces_have_the_privileged_type(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], shared: Path
) -> None:
    bind = ("-v", f"{shared}:/m")
    with containers.running(engine, busybox, flags=(*flags, *bind)) as name:
        process = containers.pid(engine, name)
        assert current(process) == containers.inspect(engine, name)["ProcessLabel"]
        assert ":spc_t:" in current(process)
        done = engine.cli("jaula", "exec", name, "cat", "/m/secret")
        assert (done.returncode, done.stdout) == (0, "of the host"), done.stderr


def test_user_role_type_and_level_can_be_chosen(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--security-opt", "label=level:s0:c900,c901", "--security-opt", "label=type:spc_t")
    with containers.running(engine, busybox, flags=flags) as name:
        assert current(containers.pid(engine, name)) == "system_u:system_r:spc_t:s0:c900,c901"
        assert containers.inspect(engine, name)["MountLabel"].endswith(":s0:c900,c901")


@pytest.mark.parametrize(
    "option", ["type:nosuch_t", "level:s7", "user:nobody_u", "kind:x", "type:"]
)
def test_a_label_unknown_to_the_policy_is_refused(
    engine: PrivateEngine, busybox: str, option: str
) -> None:
    made = engine.cli("jaula", "ps", "-aq").stdout
    done = engine.cli("jaula", "run", "--rm", "--security-opt", f"label={option}", busybox, "true")
    assert done.returncode == 125
    assert option.rpartition(":")[2] in done.stderr
    assert engine.cli("jaula", "ps", "-aq").stdout == made


def test_containers_that_share_memory_share_their_level(
    engine: PrivateEngine, busybox: str
) -> None:
    with (
        containers.running(engine, busybox, flags=("--ipc", "shareable")) as lender,
        containers.running(engine, busybox, flags=("--ipc", f"container:{lender}")) as other,
    ):
        assert current(containers.pid(engine, lender)) == current(containers.pid(engine, other))
        done = engine.cli("jaula", "exec", lender, "sh", "-c", "echo 1 > /dev/shm/x")
        assert done.returncode == 0, done.stderr
        done = engine.cli("jaula", "exec", other, "cat", "/dev/shm/x")
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@pytest.mark.parametrize(
    ("engines", "flags"),
    [(("--storage-driver", "vfs"), ()), (("--add-runtime", "runc=runc"), ("--runtime", "runc"))],
    ids=["vfs", "runc"],
)
@pytest.mark.needs("runc")
def test_labels_hold_with_another_storage_driver_or_runtime(
    new_engine: Callable[..., PrivateEngine], engines: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    engine = new_engine(*engines)
    image = load_image(engine, "busybox")
    with containers.running(engine, image, flags=flags) as name:
        document = containers.inspect(engine, name)
        process = document["State"]["Pid"]
        assert current(process) == document["ProcessLabel"]
        assert f":{TYPE}:s0:c" in document["ProcessLabel"]
        for path in ("/", "/bin/busybox", "/etc/hosts"):
            assert label(f"/proc/{process}/root{path}") == document["MountLabel"], path
        done = engine.cli("jaula", "exec", name, "cat", "/proc/self/attr/current")
        assert done.stdout.rstrip("\0\n") == document["ProcessLabel"], done.stderr
        done = engine.cli("jaula", "verify", "--format", "json", name)
        rows = {row["id"]: row["verdict"] for row in json.loads(done.stdout)}
        assert (rows["selinux label"], rows["selinux files"]) == ("holds", "holds")


def test_info_and_verify_show_the_label(engine: PrivateEngine, plain: str) -> None:
    document = engine.request("GET", "/info").json()
    assert "name=selinux" in document["SecurityOptions"]
    assert not [w for w in document["Warnings"] or [] if "SELinux" in w]
    done = engine.cli("jaula", "verify", "--format", "json", plain)
    rows = {row["id"]: row for row in json.loads(done.stdout)}
    assert rows["selinux label"]["verdict"] == "holds", rows["selinux label"]
    assert rows["selinux files"]["verdict"] == "holds", rows["selinux files"]
