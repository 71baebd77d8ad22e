"""Volumes that are a mount of something, parts of volumes, and the rest of the volume API."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine


@pytest.fixture
def volume(engine: PrivateEngine) -> Iterator[Callable[..., str]]:
    """Make a volume of the test's own by options of its driver; its name."""
    made: list[str] = []

    def make(**options: str) -> str:
        name = containers.unique("vol")
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        done = engine.cli("jaula", "volume", "create", *words, name)
        assert done.returncode == 0, done.stderr
        made.append(name)
        return name

    yield make
    for name in made:
        assert engine.request("DELETE", f"/volumes/{name}?force=1").status == 204


def run(engine: PrivateEngine, image: str, *words: str) -> str:
    done = engine.cli("jaula", "run", "--rm", *words[:-1], image, "sh", "-c", words[-1])
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def mounted(engine: PrivateEngine) -> list[str]:
    """What the engine has mounted in its volumes."""
    assert engine.process is not None
    text = Path(f"/proc/{engine.process.pid}/mountinfo").read_text()
    return [line for line in text.splitlines() if f"{engine.root}/lib/volumes" in line]


def test_a_tmpfs_volume_is_shared_and_ends_with_its_last_container(
    engine: PrivateEngine, busybox: str, volume: Callable[..., str]
) -> None:
    name = volume(type="tmpfs", device="tmpfs", o="size=1m,mode=0700,uid=1000")
    flags = ("-v", f"{name}:/m")
    with containers.running(
        engine, busybox, "sh", "-c", "echo kept > /m/f; sleep 600", flags=flags
    ):
        containers.eventually(
            lambda: (
                engine.cli("jaula", "run", "--rm", *flags, busybox, "cat", "/m/f").stdout
                == "kept\n"
            ),
            "the other container's file",
        )
        out = run(engine, busybox, *flags, "stat -c '%u %a' /m; grep ' /m ' /proc/mounts")
        assert out.startswith("1000 700\ntmpfs /m tmpfs rw,nosuid,nodev")
        assert "size=1024k" in out
        assert len(mounted(engine)) == 1
    assert mounted(engine) == []
    assert run(engine, busybox, *flags, "ls /m") == ""


def test_one_in_memory_outlives_the_engine_with_its_container(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    image = load_image(engine, "busybox")
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs")
    assert engine.cli("jaula", "volume", "create", *options, "vol").returncode == 0
    command = ("sh", "-c", "echo kept > /m/f; sleep 600")
    words = ("run", "-d", "--name", "box", "-v", "vol:/m", image, *command)
    assert engine.cli("jaula", *words).returncode == 0
    containers.eventually(
        lambda: engine.cli("jaula", "exec", "box", "cat", "/m/f").stdout, "the file"
    )
    engine.kill()
    engine.start()
    assert run(engine, image, "-v", "vol:/m", "cat /m/f") == "kept\n"
    assert engine.cli("jaula", "rm", "-f", "box").returncode == 0
    assert mounted(engine) == []


@pytest.mark.parametrize("options", ["bind", "rbind", "bind,ro"])
def test_a_volume_can_bind_a_host_directory(
    engine: PrivateEngine,
    busybox: str,
    volume: Callable[..., str],
    tmp_path: Path,
    options: str,
) -> None:
    (tmp_path / "there").write_text("of the host")
    name = volume(type="none", device=str(tmp_path), o=options)
    out = run(engine, busybox, "-v", f"{name}:/m", "cat /m/there; echo x > /m/new; true")
    assert out == "of the host"
    assert (tmp_path / "new").exists() == (options != "bind,ro")
    if options != "bind,ro":
        assert (tmp_path / "new").stat().st_uid == 0
    assert mounted(engine) == []
    # Its removal takes nothing away from the host.
    assert engine.cli("jaula", "volume", "rm", name).returncode == 0
    assert (tmp_path / "there").read_text() == "of the host"


def test_mounts_in_a_volume_are_never_removed(
    engine: PrivateEngine, volume: Callable[..., str], tmp_path: Path
) -> None:
    assert engine.process is not None
    (tmp_path / "there").write_text("of the host")
    name = volume()
    data = f"{engine.root}/lib/volumes/{name}/_data"
    os.makedirs(f"{data}/sub/deep")
    inside = ("nsenter", "-m", "-t", str(engine.process.pid))
    for place in (f"{data}/sub/deep", f"{data}/sub", data):
        subprocess.run([*inside, "mount", "--bind", str(tmp_path), place], check=True)
        try:
            done = engine.cli("jaula", "volume", "rm", name)
            assert done.returncode == 1
            assert "something is mounted in it" in done.stderr
            assert (tmp_path / "there").read_text() == "of the host"
        finally:
            found = [row.split()[4] for row in mounted(engine)]
            assert len(found) == 1
            subprocess.run([*inside, "umount", found[0]], check=True)
        os.makedirs(f"{data}/sub/deep", exist_ok=True)


@pytest.mark.needs("docker")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "none", "device": "/nowhere/at/all", "o": "bind"}, "no such file or directory"),
        ({"type": "none", "device": "/etc/passwd", "o": "bind"}, "not a directory"),
        (
            {"type": "nosuchfs", "device": "x"},
            "this kernel does not support the file system 'nosuchfs'",
        ),
        ({"type": "tmpfs", "device": "tmpfs", "o": "nosuchoption=1"}, "nosuchoption"),
    ],
)
def test_a_failed_mount_is_one_clear_error(
    engine: PrivateEngine,
    busybox: str,
    volume: Callable[..., str],
    options: dict[str, str],
    message: str,
) -> None:
    name = volume(**options)
    done = engine.cli("docker", "run", "--rm", "-v", f"{name}:/m", busybox, "true")
    missing = "no such file" in message  # which the docker command turns into 127
    assert done.returncode == (127 if missing else 125)
    assert f"failed to mount local volume {name}" in done.stderr
    assert message in done.stderr
    assert mounted(engine) == []


def test_options_of_a_mount_make_the_volume(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    name = containers.unique("vol")
    mount = (
        f"type=volume,source={name},target=/m,volume-opt=type=none,volume-opt=o=bind,"
        f"volume-opt=device={tmp_path},volume-label=a=b"
    )
    assert run(engine, busybox, "--mount", mount, "touch /m/x; ls /m") == "x\n"
    shown = engine.request("GET", f"/volumes/{name}").json()
    assert shown["Options"] == {"type": "none", "o": "bind", "device": str(tmp_path)}
    assert shown["Labels"] == {"a": "b"}
    assert engine.cli("jaula", "volume", "rm", name).returncode == 0
    assert (tmp_path / "x").exists()


def test_a_part_of_a_volume(
    engine: PrivateEngine, busybox: str, volume: Callable[..., str]
) -> None:
    name = volume()
    run(
        engine,
        busybox,
        *("-v", f"{name}:/m"),
        "mkdir -p /m/a/b; echo part > /m/a/b/f; ln -s a /m/link; ln -s / /m/out; echo 1 > /m/file",
    )

    def part(path: str) -> str:
        mount = f"type=volume,source={name},target=/m,volume-subpath={path}"
        words = ("run", "--rm", "--mount", mount, busybox, "sh", "-c", "cat /m/f || cat /m")
        done = engine.cli("jaula", *words)
        return str(done.stdout + done.stderr)

    assert part("a/b") == part("./a//b") == "part\n"
    assert "1\n" in part("file")
    assert "No such file" in part("nowhere")
    for path in ("link", "out", "out/etc", "link/b"):
        assert "symbolic link" in part(path)
    for path in ("../other", "/a", "a/../../x"):
        assert "subpath must be a relative path within the volume" in part(path)


def test_the_api_is_complete(
    engine: PrivateEngine, busybox: str, volume: Callable[..., str]
) -> None:
    name = volume()
    reply = engine.request("PUT", f"/volumes/{name}?version=1", {"Spec": {}})
    assert reply.status == 503
    assert reply.json()["message"] == (
        "volume update only valid for cluster volumes, but swarm is unavailable"
    )
    listed = engine.request("GET", '/volumes?filters={"dangling":["true"]}').json()["Volumes"]
    assert name in [found["Name"] for found in listed]
    # Named volumes are kept by prune, unless asked for, or for a client of before 1.42.
    assert name not in str(engine.request("POST", "/v1.45/volumes/prune").json())
    made = containers.unique("vol")
    labels = {"Name": made, "Labels": {"only": "this"}}
    assert engine.request("POST", "/volumes/create", labels).status == 201
    path = '/v1.41/volumes/prune?filters={"label":["only=this"]}'
    assert engine.request("POST", path).json()["VolumesDeleted"] == [made]


def test_read_only_binds_are_so_all_the_way_down(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "x", str(tmp_path / "below")], check=True)
    try:
        # The engine's namespace gets the mount only where the host's root is shared.
        assert engine.process is not None
        inside = ("nsenter", "-m", "-t", str(engine.process.pid))
        below = str(tmp_path / "below")
        subprocess.run([*inside, "mount", "-t", "tmpfs", "x", below], check=True)
        try:
            script = "touch /m/below/x 2>/dev/null && echo written || echo refused"
            for words, said in (
                (("-v", f"{tmp_path}:/m:ro"), "refused"),
                (("--mount", f"type=bind,source={tmp_path},target=/m,readonly"), "refused"),
                (
                    (
                        "--mount",
                        f"type=bind,source={tmp_path},target=/m,readonly,bind-recursive=writable",
                    ),
                    "written",
                ),
            ):
                assert run(engine, busybox, *words, script) == f"{said}\n"
        finally:
            subprocess.run([*inside, "umount", "-l", below], check=True)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "below")], check=True)


@pytest.mark.parametrize("values", [["maybe"], ["true", "false"], []])
def test_a_filter_that_is_neither_true_nor_false_is_refused(
    engine: PrivateEngine, values: list[str]
) -> None:
    shown = f"[{' '.join(values)}]"
    for method, path, key in (
        ("GET", "/volumes", "dangling"),
        ("POST", "/volumes/prune", "all"),
    ):
        query = json.dumps({key: values}).replace(" ", "")
        reply = engine.request(method, f"{path}?filters={query}")
        assert (reply.status, reply.json()["message"]) == (400, f"invalid filter '{key}={shown}'")


@pytest.mark.parametrize(
    "flag", ["-v={name}:/etc", "--mount=type=volume,source={name},target=/etc"]
)
def test_an_empty_volume_gets_the_images_content(
    engine: PrivateEngine, busybox: str, flag: str
) -> None:
    name = containers.unique("filled")
    assert engine.request("POST", "/volumes/create", {"Name": name}).status == 201
    try:
        words = ("run", "--rm", flag.format(name=name), busybox)
        first = engine.cli("jaula", *words, "sh", "-c", "cat /etc/passwd; rm /etc/group")
        assert first.stdout.startswith("root:x:0:0:"), first.stderr
        again = engine.cli("jaula", *words, "ls", "/etc/group")
        assert again.returncode == 1, "a volume that holds something is left as it is"
    finally:
        engine.request("DELETE", f"/volumes/{name}")


def test_containers_that_come_and_go_see_the_same_volume(
    engine: PrivateEngine, busybox: str, volume: Callable[..., str], tmp_path: Path
) -> None:
    """What one that ends takes away is not taken from one that is just being started."""
    name = volume(type="none", device=str(tmp_path), o="bind")
    (tmp_path / "there").write_text("of the host")

    def one(_: int) -> str:
        words = ("run", "--rm", "-v", f"{name}:/m", busybox, "cat", "/m/there")
        done = engine.cli("jaula", *words)
        return str(done.stdout + done.stderr)

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(one, range(36))) == {"of the host"}
    containers.eventually(lambda: mounted(engine) == [], "nothing mounted")
