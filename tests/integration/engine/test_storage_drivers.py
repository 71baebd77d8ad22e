"""Containers on every storage driver, through the engine: run, write, diff, commit, limit."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import load_image, open_to_all
from harness import layers, leaks, loop_mount, toolboxes
from harness.api_user import ApiUser
from harness.engine import PrivateEngine
from jaula.kernel import quotactl
from jaula.storage.trees import open_directory


@contextmanager
def engine_on(top: Path, driver: str, index: int, *options: str) -> Iterator[PrivateEngine]:
    """An engine with its files on a disk of its own, with a small image."""
    private = PrivateEngine(
        index,
        root=top / f"jlt{os.getpid()}",
        extra_flags=("--storage-driver", driver, *options),
    )
    private.root.mkdir()
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


DRIVERS = {
    "overlay": ("overlay",),
    "overlay-erofs": ("overlay", "--storage-opt", "erofs=on"),
    "overlay-verity": ("overlay", "--storage-opt", "verity=on"),
    "btrfs": ("btrfs",),
    "vfs": ("vfs",),
}


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.vm] if name == "overlay-verity" else [])
        for name in DRIVERS
    ]
)
def engine(
    request: pytest.FixtureRequest, worker_index: int, tmp_path: Path
) -> Iterator[PrivateEngine]:
    """An engine with each driver and each form of layers, on btrfs."""
    index = (worker_index + 31) % 250 + 1
    driver, *options = DRIVERS[str(request.param)]
    with (
        loop_mount.mounted(tmp_path, "mkfs.btrfs", "-q") as top,
        engine_on(top, driver, index, *options) as private,
    ):
        yield private


def jaula(engine: PrivateEngine, *words: str, status: int = 0) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def check_finds_nothing(engine: PrivateEngine, *words: str) -> None:
    """Compare the output only: a slow check prints its progress on the standard error."""
    done = engine.cli("jaula", "system", "check", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "No problems found.\n"


def test_a_containers_life(engine: PrivateEngine) -> None:
    write = "echo new > /etc/new; rm /etc/passwd; chmod 700 /tmp; mkdir -p /a/b; id -u > /a/b/c"
    jaula(engine, "run", "--name", "c1", "busybox", "sh", "-c", write)
    told = jaula(engine, "diff", "c1").splitlines()
    assert {"A /etc/new", "D /etc/passwd", "C /tmp", "A /a/b/c", "C /etc"} <= set(told)
    jaula(engine, "commit", "c1", "made")
    look = "cat /etc/new /a/b/c; ls /etc/passwd; stat -c %a /tmp"
    out = jaula(engine, "run", "--rm", "made", "sh", "-c", look)
    assert out.splitlines()[:2] == ["new", "0"]
    assert "No such file" in out
    assert jaula(engine, "run", "--rm", "busybox", "ls", "/etc/passwd") == "/etc/passwd\n"
    assert engine.request("GET", "/info").json()["Driver"] in engine.extra_flags
    check_finds_nothing(engine, "--contents")
    jaula(engine, "start", "c1")
    jaula(engine, "rm", "-f", "c1")
    jaula(engine, "rmi", "made")


def test_containers_survive_the_engine(engine: PrivateEngine) -> None:
    jaula(engine, "run", "-d", "--name", "c1", "busybox", "sh", "-c", "echo x > /x; sleep 99")
    engine.kill()
    engine.start()
    assert jaula(engine, "exec", "c1", "cat", "/x") == "x\n"
    check_finds_nothing(engine)


def test_debug_has_launchers_and_copies_files(engine: PrivateEngine) -> None:
    jaula(engine, "run", "--name", "c1", "busybox", "sh", "-c", "echo x > /x; rm /etc/passwd")
    jaula(engine, "run", "-d", "--name", "c2", "busybox", "sleep", "99")
    show = "cat /x; ls /etc/passwd; echo changed > /x"
    with toolboxes.dynamic(engine) as tools:
        words = ("debug", "--image", tools, "c2", "linked", "/proc/self/maps")
        assert "/.debug/lib/libc.so.6" in jaula(engine, *words)
        words = ("debug", "--image", tools, "c1", "linked", "/proc/self/maps")
        assert "/.debug/lib/libc.so.6" in jaula(engine, *words)
        out = jaula(engine, "debug", "c1", "sh", "-c", show)
        assert out == "x\nls: /etc/passwd: No such file or directory\n"
        assert jaula(engine, "debug", "c1", "cat", "/x") == "x\n"
        jaula(engine, "rm", "-f", "c2")
    assert jaula(engine, "ps", "-aq", "--no-trunc").count("\n") == 1
    check_finds_nothing(engine)


FILL = "dd if=/dev/urandom of=/big bs=1M count=60 2>&1; sync; echo wrote $(wc -c < /big)"


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_a_caller_without_a_limit_has_the_one_of_its_rule(
    driver: str, worker_index: int, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[user.54901]\naccess = "run"\nmax-storage-size = "20m"\n')
    index = (worker_index + 61) % 250 + 1
    maker = ("mkfs.ext4", "-q", "-O", "quota,project")
    with (
        loop_mount.mounted(tmp_path, *maker, options="prjquota") as top,
        engine_on(top, driver, index, "--policy", str(policy)) as engine,
    ):
        open_to_all(engine)
        user, root = ApiUser(engine, 54901, 54901), ApiUser(engine, 0, 0)
        body = {"Image": "busybox", "Cmd": ["sh", "-c", FILL], "HostConfig": {}}
        for caller in (user, root):
            assert caller.request("POST", "/containers/create?name=c1", body).status == 201
            assert caller.request("POST", "/containers/c1/start").status == 204
            assert caller.request("POST", "/containers/c1/wait").status == 200
            written = int(jaula(engine, "logs", "c1").split()[-1])
            assert written <= 20 << 20 if caller is user else written == 60 << 20
            assert caller.request("DELETE", "/containers/c1").status == 204
        body["HostConfig"] = {"StorageOpt": {"size": "30m"}}
        reply = user.request("POST", "/containers/create", body)
        assert reply.status == 403
        assert "may not ask for storage-size=30MiB" in reply.json()["message"]


def test_the_default_share_of_a_caller_is_a_quarter_of_the_disk(
    worker_index: int, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[user.54901]\naccess = "run"\n')
    index = (worker_index + 61) % 250 + 1
    maker = ("mkfs.ext4", "-q", "-O", "quota,project")
    with (
        loop_mount.mounted(tmp_path, *maker, options="prjquota", size=6 << 30) as top,
        engine_on(top, "overlay", index, "--policy", str(policy)) as engine,
    ):
        open_to_all(engine)
        user, root = ApiUser(engine, 54901, 54901), ApiUser(engine, 0, 0)
        limits = {}
        for name, caller in (("mine", user), ("root", root)):
            made = caller.request(
                "POST", f"/containers/create?name={name}", {"Image": "busybox", "Cmd": ["true"]}
            )
            assert made.status == 201, made
            directory = engine.root / "lib/containers" / made.json()["Id"]
            with open_directory(directory / "upper") as upper:
                project = quotactl.project(upper)
                limits[name] = quotactl.get(upper, project).dqb_bhardlimit * quotactl.QIF_DQBLKSIZE
            assert (project != 0) == (caller is user)
        disk = os.statvfs(top)
        quarter = disk.f_blocks * disk.f_frsize // 4
        assert quarter > 1 << 30  # below, the share is 1 GiB
        assert quarter <= limits["mine"] <= quarter + (1 << 20)  # and the empty directories
        assert limits["root"] == 0
        for name, caller in (("mine", user), ("root", root)):
            assert caller.request("DELETE", f"/containers/{name}").status == 204


QUOTAS = {
    "ext4": (("mkfs.ext4", "-q", "-O", "quota,project"), "prjquota", "overlay"),
    "xfs": (("mkfs.xfs", "-q"), "prjquota", "overlay"),
    "btrfs": (("mkfs.btrfs", "-q"), "", "btrfs"),
}
"""A file system that limits what a container writes: what makes it, its options, the driver."""
FULL = {
    "ext4": "Disk quota exceeded",
    "xfs": "No space left on device",
    "btrfs": "Disk quota exceeded",
}
"""What a program is told at the limit; xfs has no other error for a project (xfs_quota(8))."""

EXCEED = """
case "$1" in
write) dd if=/dev/zero of=/big bs=1M count=60 ;;
holes) for i in $(seq 100); do
    dd if=/dev/zero of=/big bs=256k count=1 seek=$((i * 7)) conv=notrunc || break; done ;;
files) for i in $(seq 100); do dd if=/dev/zero of=/f$i bs=512k count=1 || break; done ;;
again) dd if=/dev/zero of=/more bs=1M count=60 ;;
esac 2>&1 | grep -v records | tail -1
"""
"""How a program writes more than it may, and the error that it gets."""


@pytest.mark.parametrize("kind", list(QUOTAS))
def test_a_restricted_caller_writes_up_to_its_ceiling(
    kind: str, worker_index: int, tmp_path: Path
) -> None:
    """By one file, by holes, by many files, after a restart of the container and the engine."""
    maker, options, driver = QUOTAS[kind]
    policy = tmp_path / "policy.toml"
    policy.write_text('[user.54901]\naccess = "run"\nmax-storage-size = "20m"\n')
    index = (worker_index + 61) % 250 + 1
    with (
        loop_mount.mounted(tmp_path, *maker, options=options) as top,
        engine_on(top, driver, index, "--policy", str(policy)) as engine,
    ):
        open_to_all(engine)
        user = ApiUser(engine, 54901, 54901)
        size = {"StorageOpt": {"size": "20m"}} if driver == "btrfs" else {}
        body = {"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": size}

        def begin(name: str, image: str = "busybox") -> None:
            made = user.request("POST", f"/containers/create?name={name}", body | {"Image": image})
            assert made.status == 201, made
            assert user.request("POST", f"/containers/{name}/start").status == 204

        def is_refused(name: str, way: str) -> bool:
            said = jaula(engine, "exec", name, "sh", "-c", EXCEED, "sh", way)
            return FULL[kind] in said

        for way in ("write", "holes", "files"):
            begin(way)
            assert is_refused(way, way), way
            used = engine.request("GET", f"/containers/{way}/json?size=1").json()["SizeRw"]
            assert way == "holes" or used <= 21 << 20, way
        restarted = user.request("POST", "/containers/write/restart?t=0")
        if kind == "xfs":  # overlayfs makes a directory for a mount, and xfs exempts no process
            assert restarted.status == 503, restarted
        else:
            assert restarted.status == 204, restarted
            assert is_refused("write", "again")
            engine.kill()
            engine.start()
            open_to_all(engine)
            assert is_refused("write", "again")
            assert user.request("POST", "/containers/write/restart?t=0").status == 204
            assert is_refused("write", "again")
        # A copy has the files in a layer, and a whole ceiling of its own.
        reply = user.request("POST", "/commit?container=write&repo=copy", {})
        assert reply.status == 201, reply
        begin("copy", "copy")
        assert is_refused("copy", "write")
        for name in ("write", "holes", "files", "copy"):
            assert user.request("DELETE", f"/containers/{name}?force=1").status == 204
        assert user.request("DELETE", "/images/copy").status == 200


def test_without_quotas_a_requested_size_is_refused_and_another_container_is_created(
    worker_index: int, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[user.54901]\naccess = "run"\nmax-storage-size = "20m"\n')
    index = (worker_index + 61) % 250 + 1
    with (
        loop_mount.mounted(tmp_path, "mkfs.ext4", "-q") as top,
        engine_on(top, "overlay", index, "--policy", str(policy)) as engine,
    ):
        open_to_all(engine)
        user = ApiUser(engine, 54901, 54901)
        body: dict[str, object] = {"Image": "busybox", "Cmd": ["true"]}
        host = {"StorageOpt": {"size": "10m"}}
        refused = user.request("POST", "/containers/create", body | {"HostConfig": host})
        assert refused.status == 501, refused
        assert "--storage-opt size= is not possible on" in refused.json()["message"]
        assert user.request("POST", "/containers/create?name=c1", body).status == 201
        assert user.request("DELETE", "/containers/c1").status == 204


def check_limit(engine: PrivateEngine) -> None:
    words = ("run", "--name", "c1", "--storage-opt", "size=20m", "busybox", "sh", "-c", FILL)
    out = jaula(engine, *words)
    assert "Disk quota exceeded" in out or "No space left on device" in out
    assert 15 << 20 < int(out.split()[-1]) <= 20 << 20
    out = jaula(engine, "run", "--rm", "busybox", "sh", "-c", FILL)
    assert out.split()[-1] == str(60 << 20)
    jaula(engine, "rm", "c1")


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
@pytest.mark.parametrize(
    "maker", [("mkfs.ext4", "-q", "-O", "quota,project"), ("mkfs.xfs", "-q")], ids=["ext4", "xfs"]
)
def test_a_project_limits_a_container(
    maker: tuple[str, ...], driver: str, worker_index: int, tmp_path: Path
) -> None:
    index = (worker_index + 61) % 250 + 1
    with (
        loop_mount.mounted(tmp_path, *maker, options="prjquota") as top,
        engine_on(top, driver, index) as engine,
    ):
        check_limit(engine)


def test_a_limited_container_cannot_fill_the_disk(engine: PrivateEngine) -> None:
    words = ("run", "--name", "c1", "--storage-opt", "size=20m", "busybox", "sh", "-c", FILL)
    if "btrfs" not in engine.extra_flags:
        assert "--storage-opt size= is not possible on btrfs" in jaula(engine, *words, status=125)
        assert jaula(engine, "ps", "-aq") == ""
        return
    check_limit(engine)


@pytest.mark.slow
def test_an_image_of_two_hundred_layers(
    engine: PrivateEngine, busybox_archive: Path, tmp_path: Path
) -> None:
    deep = tmp_path / "deep.tar"
    deep.write_bytes(of_two_hundred_layers(busybox_archive))
    with deep.open("rb") as file:
        done = engine.cli("jaula", "load", stdin=file)
    assert done.returncode == 0, done.stderr
    look = "ls / | grep -c ^f; cat /last; echo more > /more"
    assert jaula(engine, "run", "--name", "c1", "deep:1", "sh", "-c", look) == "199\n199\n"
    jaula(engine, "commit", "c1", "deeper:1")
    assert jaula(engine, "run", "--rm", "deeper:1", "cat", "/last", "/more") == "199\nmore\n"
    assert len(jaula(engine, "history", "-q", "deeper:1").split()) == 201
    jaula(engine, "rm", "c1")
    jaula(engine, "rmi", "deeper:1", "deep:1")


MARK = b"a file that is changed on the disk beneath the file system"


@pytest.mark.vm
def test_changed_data_of_a_layer_is_an_error_in_the_container_and_is_repaired(
    worker_index: int, busybox_archive: Path, tmp_path: Path
) -> None:
    marked = tmp_path / "marked.tar"
    marked.write_bytes(of_a_marked_layer(busybox_archive))
    index = (worker_index + 91) % 250 + 1
    options = ("--storage-opt", "verity=on")
    with (
        loop_mount.mounted(tmp_path, "mkfs.ext4", "-q", "-O", "verity") as top,
        engine_on(top, "overlay", index, *options) as engine,
    ):
        with marked.open("rb") as file:
            assert engine.cli("jaula", "load", stdin=file).returncode == 0
        read = ("run", "--rm", "marked:1", "sh", "-c", "cat /marked | wc -c; cat /other")
        assert jaula(engine, *read) == f"{len(MARK) * 200}\nunchanged\n"
        assert "EROFS with fs-verity" in jaula(engine, "info")
        assert loop_mount.change(tmp_path, MARK)
        out = jaula(engine, *read)
        assert "cat: read error: Input/output error" in out or "I/O error" in out
        assert "unchanged" in out
        found = jaula(engine, "system", "check", "--contents", status=1)
        assert "it cannot be read: Input/output error" in found
        jaula(engine, "system", "check", "--contents", "--repair")
        assert jaula(engine, *read) == f"{len(MARK) * 200}\nunchanged\n"
        check_finds_nothing(engine, "--contents")
        jaula(engine, "rmi", "marked:1")


def of_a_marked_layer(busybox: Path) -> bytes:
    """An archive with busybox's layer and a compressed one with the mark."""
    with tarfile.open(busybox) as tar:
        listed = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        base = tar.extractfile(listed[0]["Layers"][0]).read()  # type: ignore[union-attr]
    own = layers.layer((("marked", MARK * 200), ("other", "unchanged\n")))
    stored = gzip.compress(own)
    return layers.image("marked:1", (base, layers.digest(base)), (stored, layers.digest(own)))


def of_two_hundred_layers(busybox: Path) -> bytes:
    """An archive; the base is busybox's layer."""
    with tarfile.open(busybox) as tar:
        listed = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        base = tar.extractfile(listed[0]["Layers"][0]).read()  # type: ignore[union-attr]
    every = [base]
    every += [layers.layer(((f"f{n}", str(n)), ("last", f"{n}\n"))) for n in range(1, 200)]
    return layers.image("deep:1", *((each, layers.digest(each)) for each in every))
