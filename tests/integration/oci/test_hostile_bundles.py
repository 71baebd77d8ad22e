"""Bundles of an untrusted author: one clear line, exit status 1, and nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.private_runtime import Bundle, Config, PrivateRuntime


def no_root(bundle: Bundle) -> None:
    shutil.rmtree(bundle.path / "rootfs")


def root_is_a_file(bundle: Bundle) -> None:
    no_root(bundle)
    (bundle.path / "rootfs").touch()


def root_is_a_fifo(bundle: Bundle) -> None:
    no_root(bundle)
    os.mkfifo(bundle.path / "rootfs")


def root_is_a_loop(bundle: Bundle) -> None:
    no_root(bundle)
    (bundle.path / "rootfs").symlink_to("rootfs")


def config_is_a_fifo(bundle: Bundle) -> None:
    (bundle.path / "config.json").unlink()
    os.mkfifo(bundle.path / "config.json")


def config_is_huge(bundle: Bundle) -> None:
    with (bundle.path / "config.json").open("r+b") as file:
        file.truncate(1 << 40)


def config_is_a_directory(bundle: Bundle) -> None:
    (bundle.path / "config.json").unlink()
    (bundle.path / "config.json").mkdir()


def config_is_missing(bundle: Bundle) -> None:
    (bundle.path / "config.json").unlink()


def config_is_no_json(bundle: Bundle) -> None:
    (bundle.path / "config.json").write_bytes(b"\x00\xff{")


def config_is_nested_deeply(bundle: Bundle) -> None:
    text = '{"ociVersion":"1.2.0","x":' + "[" * 100_000 + "]" * 100_000 + "}"
    (bundle.path / "config.json").write_text(text)


def bundle_is_gone(bundle: Bundle) -> None:
    bundle.err = bundle.runtime.base / f"{bundle.id}.err"
    bundle.out = bundle.runtime.base / f"{bundle.id}.out"
    shutil.rmtree(bundle.path)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (no_root, "rootfs"),
        (root_is_a_file, "rootfs"),
        (root_is_a_fifo, "rootfs"),
        (root_is_a_loop, "rootfs"),
        (config_is_a_fifo, "is a pipe, not a regular file"),
        (config_is_huge, "is larger than 16 MiB"),
        (config_is_a_directory, "is a directory"),
        (config_is_missing, "no such file or directory"),
        (config_is_no_json, "config.json: "),
        (config_is_nested_deeply, "nested too deeply"),
        (bundle_is_gone, "no such file or directory"),
    ],
)
def test_a_broken_bundle_is_refused(
    runtime: PrivateRuntime, spoil: Callable[[Bundle], None], text: str
) -> None:
    bundle = runtime.bundle(own_root=True)
    spoil(bundle)
    assert text in bundle.refused()
    assert not runtime.left()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"root": None}, "root.path: is missing"),
        ({"root": {"path": ""}}, "root.path: is missing"),
        ({"root": {"path": "../nonexistent"}}, "nonexistent"),
        ({"process": None}, "process: is missing"),
        ({"ociVersion": "2.0.0"}, "ociVersion: '2.0.0' is not supported"),
        ({"ociVersion": None}, "ociVersion is missing"),
        ({"ociVersion": "one"}, "ociVersion: 'one' is not a version"),
        ({"hostname": "x" * 65}, "hostname: is longer than 64 bytes"),
        ({"hostname": "a\0b"}, "hostname: holds a NUL byte"),
        ({"process": {"args": ["a\0b"]}}, "process.args[0]: holds a NUL byte"),
        ({"windows": {}}, "section 'windows' is for a platform"),
        (
            {"linux": {"namespaces": [{"type": "mount"}, {"type": "x\ny"}]}},
            "'x\\ny' must be one of",
        ),
        ({"linux": {"rootfsPropagation": "sideways"}}, "linux.rootfsPropagation: 'sideways'"),
        ({"linux": {"maskedPaths": ["proc"]}}, "linux.maskedPaths[0]: 'proc' is not an absolute"),
        ({"linux": {"readonlyPaths": [""]}}, "linux.readonlyPaths[0]"),
        ({"linux": {"devices": [{"path": "/dev/x", "type": "q"}]}}, "linux.devices[0].type"),
        ({"linux": {"personality": {"domain": "SUN"}}}, "linux.personality.domain"),
        ({"hooks": {"prestart": [{"path": "bin/true"}]}}, "hooks.prestart[0].path"),
        ({"hooks": {"poststop": [{"path": "/x", "timeout": 0}]}}, "hooks.poststop[0].timeout"),
        ({"linux": {"cgroupsPath": "../../x"}}, "linux.cgroupsPath"),
        ({"linux": {"cgroupsPath": "/a/../../b"}}, "linux.cgroupsPath"),
        ({"linux": {"resources": {"pids": {"limit": "many"}}}}, "pids.limit"),
        ({"linux": {"resources": {"devices": [{"allow": True, "type": "z"}]}}}, "devices[0].type"),
    ],
)
def test_an_invalid_field_is_named(runtime: PrivateRuntime, changes: Config, text: str) -> None:
    assert text in runtime.bundle(changes).refused()
    assert not runtime.left()


def mounts_at(*places: str) -> list[str]:
    """The host's mounts at some places."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] in places]


@pytest.mark.parametrize("path", ["/", "link-to-/"])
def test_the_root_of_the_host_is_refused_or_unchanged(runtime: PrivateRuntime, path: str) -> None:
    """A user who creates containers may name any directory; the host must not change."""
    before = sorted(os.listdir("/")), mounts_at("/", "/proc", "/sys", "/dev", "/dev/pts")
    bundle = runtime.bundle({"root": {"path": path, "readonly": True}}, script="true")
    if path.startswith("link"):
        (bundle.path / path).symlink_to("/")
    done = bundle.run()
    bundle.delete("--force")
    assert done.returncode in (0, 1)
    assert len(done.stderr.splitlines()) == done.returncode, done.stderr
    after = sorted(os.listdir("/")), mounts_at("/", "/proc", "/sys", "/dev", "/dev/pts")
    assert after == before


def test_a_root_above_the_bundle_is_only_a_directory(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle({"root": {"path": ".."}}, script="true")
    try:
        assert 'exec: "sh": executable file not found' in bundle.refused()
    finally:
        for name in ("proc", "dev", "sys"):  # mount points, which every root gets
            (runtime.base / name).rmdir()


def test_a_root_may_be_a_link_to_a_directory(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle({"root": {"path": "link"}}, script="echo fine")
    (bundle.path / "link").symlink_to(runtime.rootfs)
    assert bundle.printed() == "fine\n"


# links in the root


def tmpfs(destination: str) -> Config:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["nodev"]}


@pytest.mark.parametrize("kind", ["tmpfs", "bind", "file"])
@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("evil", "OUTSIDE"),
        ("evil", "../../../../../../../../..OUTSIDE"),
        ("evil", "/proc/1/root"),
        ("deep/evil", "OUTSIDE"),
    ],
)
def test_nothing_is_created_outside_through_a_link_in_the_root(
    runtime: PrivateRuntime, tmp_path: Path, kind: str, link: str, target: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    source = tmp_path / "source"
    mount = tmpfs(f"/{link}/made/here")
    if kind != "tmpfs":
        source.mkdir() if kind == "bind" else source.touch()
        mount |= {"type": "bind", "source": str(source), "options": ["bind"]}
    changes = {"mounts": [*runtime.config["mounts"], mount], "root": {"readonly": False}}
    bundle = runtime.bundle(changes, own_root=True, script="true")
    place = bundle.path / "rootfs" / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(target.replace("OUTSIDE", str(outside)))
    done = bundle.run()
    bundle.delete("--force")
    assert done.returncode in (0, 1)
    assert len(done.stderr.splitlines()) == done.returncode, done.stderr
    assert not list(outside.iterdir())
    assert not Path("/made").exists()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert not mounts_at("/made/here")


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "dev/pts", "etc"])
def test_a_link_in_place_of_a_mount_point_stays_in_the_root(
    runtime: PrivateRuntime, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    mounts = runtime.config["mounts"] + ([tmpfs("/etc")] if name == "etc" else [])
    bundle = runtime.bundle({"mounts": mounts}, own_root=True, script="true")
    place = bundle.path / "rootfs" / name
    if place.exists():
        place.rmdir()
    place.symlink_to(outside)
    done = bundle.run()
    bundle.delete("--force")
    assert done.returncode in (0, 1)
    assert len(done.stderr.splitlines()) == done.returncode, done.stderr
    assert not list(outside.iterdir())
    if done.returncode == 0 and name == "proc":
        assert not (outside / "self").exists()


def test_a_masked_path_behind_a_link_masks_nothing_of_the_host(
    runtime: PrivateRuntime, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("host")
    linux = {"maskedPaths": ["/etc/link"], "readonlyPaths": ["/etc/other"]}
    bundle = runtime.bundle({"linux": linux}, own_root=True, script="true")
    (bundle.path / "rootfs/etc/link").symlink_to(secret)
    (bundle.path / "rootfs/etc/other").symlink_to(tmp_path)
    done = bundle.run()
    bundle.delete("--force")
    assert len(done.stderr.splitlines()) == done.returncode, done.stderr
    assert secret.read_text() == "host"
    (tmp_path / "new").touch()


def test_a_program_that_is_a_link_out_of_the_root_stays_inside(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle({"process": {"args": ["/bin/out"]}}, own_root=True)
    (bundle.path / "rootfs/bin/out").symlink_to("../../../../../../../../usr/bin/env")
    assert 'exec: "/bin/out"' in bundle.refused()


@pytest.mark.parametrize("target", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/1/cwd", "/proc"])
def test_no_link_leads_the_working_directory_out_of_the_root(
    runtime: PrivateRuntime, target: str
) -> None:
    bundle = runtime.bundle(
        {"process": {"cwd": "/leak"}}, own_root=True, script="pwd; ls | head -n 3"
    )
    (bundle.path / "rootfs/leak").symlink_to(target)
    done = bundle.run()
    bundle.delete("--force")
    if done.returncode == 0:
        assert "usr" not in done.stdout.split()
        assert done.stdout.startswith("/")
    else:
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1


def test_a_fifo_in_place_of_a_file_does_not_block(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle({"process": {"env": ["PATH=/bin"]}}, own_root=True, script="echo $HOME")
    os.mkfifo(bundle.path / "rootfs/etc/passwd")
    assert bundle.printed() == "/\n"


def test_a_huge_list_is_taken_or_refused_in_time(runtime: PrivateRuntime) -> None:
    env = [f"KEY{n}={'x' * 50}" for n in range(20_000)]
    done = runtime.bundle({"process": {"env": ["PATH=/bin", *env]}}, script="env | wc -l").run()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20_000
    paths = [f"/nonexistent/{n}" for n in range(3000)]
    linux = {"maskedPaths": paths, "readonlyPaths": paths}
    assert runtime.bundle({"linux": linux}, script="echo fine").printed() == "fine\n"


def test_a_long_argument_that_the_kernel_refuses_is_one_line(runtime: PrivateRuntime) -> None:
    done = runtime.bundle({"process": {"args": ["echo", "x" * (1 << 18)]}}).run()
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "argument list too long" in line.lower()
    assert len(line) < 1000


def test_control_characters_are_quoted(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle({"process": {"args": ["\x1b[31mred\nline"]}})
    text = bundle.refused()
    assert "executable file not found" in text
    assert "\x1b" not in bundle.err.read_text()


def test_a_config_may_not_be_read_by_another_user_than_root_alone(runtime: PrivateRuntime) -> None:
    """No other user may read the record: the environment may hold secrets."""
    with runtime.created() as bundle:
        place = runtime.root / bundle.id
        assert runtime.root.stat().st_mode & 0o077 == 0
        assert place.stat().st_mode & 0o077 == 0
        for name in ("state.json", "config.json"):
            assert (place / name).stat().st_mode & 0o077 == 0


def test_a_later_change_of_the_bundle_changes_nothing(runtime: PrivateRuntime) -> None:
    """The spec of the creation applies (runtime.md)."""
    with runtime.created(script="echo old; exec sleep 60") as bundle:
        bundle.config["process"]["args"] = ["echo", "new"]
        bundle.config["hooks"] = {"poststart": [{"path": "/nonexistent"}]}
        bundle.write()
        assert bundle.start().returncode == 0
        for _ in range(100):
            if bundle.out.read_text():
                break
            subprocess.run(["sleep", "0.02"], check=True)
        assert bundle.out.read_text() == "old\n"


def test_every_error_is_also_the_last_line_of_a_json_log(
    runtime: PrivateRuntime, tmp_path: Path
) -> None:
    bundle = runtime.bundle({"hostname": "x" * 65})
    log = tmp_path / "log.json"
    flags = ["--log", str(log), "--log-format", "json"]
    done = runtime.command(*flags, "create", "--bundle", str(bundle.path), bundle.id)
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["level"] == "error"
    assert last["msg"] == "hostname: is longer than 64 bytes"
    assert done.stderr == "hostname: is longer than 64 bytes\n"


def test_more_mounts_than_descriptors_is_one_error_and_leaves_nothing(
    runtime: PrivateRuntime, tmp_path: Path
) -> None:
    mount = {"destination": "/tmp", "type": "bind", "source": str(tmp_path), "options": ["bind"]}
    bundle = runtime.bundle({"mounts": [mount] * 200})
    done = subprocess.run(
        ["prlimit", "--nofile=128", *bundle.words("run")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"mount {tmp_path} at /tmp" in line
    assert "Too many open files" in line
    assert not runtime.left()
