"""Mounts of a spec, checked inside: mountinfo, stat and attempts to write."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.container_runner import ContainerRunner
from jaula.errors import JaulaError
from jaula.kernel.mounts import mount
from jaula.spec import runtime_spec


def seen(runner: ContainerRunner, script: str, *mounts: runtime_spec.Mount, **spec: object) -> str:
    """Return the output of a shell script in a container with these mounts."""
    texts: list[str] = []

    async def scene() -> None:
        box = await runner.start("sh", "-c", script, mounts=mounts, **spec)
        texts.append(await box.output())
        await box.ended

    asyncio.run(scene())
    return texts[0]


def refused(runner: ContainerRunner, *mounts: runtime_spec.Mount, **spec: object) -> str:
    """Return why a container with these mounts does not start."""

    async def scene() -> None:
        await runner.start("true", mounts=mounts, **spec)

    with pytest.raises(JaulaError) as caught:
        asyncio.run(scene())
    return str(caught.value)


def info(text: str, point: str) -> tuple[set[str], str, str]:
    """(options, propagation, type) of the topmost mount at ``point`` in a mountinfo."""
    for line in reversed(text.splitlines()):
        head, _, tail = line.partition(" - ")
        words = head.split()
        if words[4] == point:
            return set(words[5].split(",")), " ".join(words[6:]), tail.split()[0]
    raise AssertionError(f"nothing is mounted at {point}:\n{text}")


INFO = "cat /proc/self/mountinfo"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory with a tmpfs mounted below it."""
    tmp_path.chmod(0o755)
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path / "below")], check=True)
    (tmp_path / "below/file").write_text("below\n")
    (tmp_path / "file").write_text("top\n")
    (tmp_path / "file").chmod(0o666)
    (tmp_path / "below/file").chmod(0o666)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path / "below")], check=True)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("ro", "ro"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("nodiratime", "nodiratime"),
        ("nosymfollow", "nosymfollow"),
        ("relatime", "relatime"),
    ],
)
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_an_attribute_takes_effect(
    runner: ContainerRunner, tmp_path: Path, kind: str, option: str, expected: str
) -> None:
    requested = runtime_spec.Mount("/data", str(tmp_path), kind, (option,))
    assert expected in info(seen(runner, INFO, requested), "/data")[0]


def test_recursive_attributes_apply_to_mounts_below(runner: ContainerRunner, tree: Path) -> None:
    text = seen(
        runner, INFO, runtime_spec.Mount("/data", str(tree), None, ("rbind", "rro", "rnosuid"))
    )
    for point in ("/data", "/data/below"):
        assert {"ro", "nosuid"} <= info(text, point)[0]
    text = seen(runner, INFO, runtime_spec.Mount("/data", str(tree), None, ("rbind", "ro")))
    assert "ro" in info(text, "/data")[0]
    assert "rw" in info(text, "/data/below")[0]


def test_a_recursive_bind_is_read_only_and_its_opposite_writable(
    runner: ContainerRunner, tree: Path
) -> None:
    script = "echo x 2>/dev/null > /data/below/file && echo written || echo refused"
    for options, expected in ((("rbind", "rro"), "refused"), (("rbind", "rro", "rrw"), "written")):
        assert expected in seen(
            runner, script, runtime_spec.Mount("/data", str(tree), None, options)
        )


def test_a_plain_bind_excludes_mounts_below(runner: ContainerRunner, tree: Path) -> None:
    requested = runtime_spec.Mount("/data", str(tree), None, ("bind",))
    assert seen(runner, "ls /data/below; cat /data/file", requested) == "top\n"


def test_a_file_is_bound_on_a_created_file(runner: ContainerRunner, tree: Path) -> None:
    requested = runtime_spec.Mount("/new/place/file", str(tree / "file"), "bind", ("ro",))
    assert seen(runner, "cat /new/place/file", requested) == "top\n"


def test_idmap_is_of_one_mount_and_ridmap_of_the_tree(runner: ContainerRunner, tree: Path) -> None:
    script = "stat -c %u /data/file /data/below/file"
    one = runtime_spec.Mount("/data", str(tree), None, ("rbind", "idmap"))
    all_ = runtime_spec.Mount("/data", str(tree), None, ("rbind", "ridmap"))
    assert seen(runner, script, one) == "0\n65534\n"
    assert seen(runner, script, all_) == "0\n0\n"


def test_a_mount_has_mappings_of_its_own(runner: ContainerRunner, tree: Path) -> None:
    rows = (runtime_spec.IDMapping(0, runner.first_id + 7, 1),)
    requested = runtime_spec.Mount(
        "/data", str(tree), "bind", ("bind", "idmap"), uid_mappings=rows, gid_mappings=rows
    )
    assert seen(runner, "stat -c %u:%g /data/file", requested) == "7:7\n"


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ],
)
def test_propagation_matches_the_option(
    runner: ContainerRunner, tree: Path, option: str, expected: str
) -> None:
    text = seen(runner, INFO, runtime_spec.Mount("/data", str(tree), None, ("rbind", option)))
    assert info(text, "/data")[1].startswith(expected)
    below = info(text, "/data/below")[1]
    assert below.startswith(expected) if option.startswith("r") else "unbindable" not in below


@pytest.mark.parametrize("option", ["private", "slave", "shared", "rshared", "unbindable"])
def test_no_bind_of_a_user_namespace_is_a_peer_of_a_mount_of_the_host(
    runner: ContainerRunner, tree: Path, option: str
) -> None:
    """The kernel attaches a peer in any namespace, and mounts in it would appear on the host."""
    subprocess.run(["mount", "--make-shared", str(tree / "below")], check=True)
    host = info(Path("/proc/self/mountinfo").read_text(), str(tree / "below"))[1].split()
    text = seen(runner, INFO, runtime_spec.Mount("/data", str(tree), None, ("rbind", option)))
    assert host and host[0].startswith("shared:")
    assert host[0] not in info(text, "/data/below")[1].split()


@pytest.mark.parametrize("option", ["slave", "rslave"])
def test_a_slave_of_a_shared_mount_receives_later_mounts(
    runner: ContainerRunner, tree: Path, option: str
) -> None:
    below = tree / "below"
    subprocess.run(["mount", "--make-shared", str(below)], check=True)
    (below / "late").mkdir()
    texts: list[str] = []

    async def scene() -> None:
        box = await runner.start(
            *("sh", "-c", "read go; ls /data/late; cat /proc/self/mountinfo"),
            stdin=True,
            mounts=(runtime_spec.Mount("/data", str(below), None, ("rbind", option)),),
        )
        mount(None, str(below / "late"), "tmpfs")
        (below / "late/arrived").write_text("")
        box.client.sendall(b"go\n")
        texts.append(await box.output())
        await box.ended

    try:
        asyncio.run(scene())
    finally:
        subprocess.run(["umount", str(below / "late")], check=False)
    assert texts[0].startswith("arrived\n")
    assert "master:" in info(texts[0], "/data")[1]


def test_remount_changes_an_existing_mount(runner: ContainerRunner, tree: Path) -> None:
    text = seen(
        runner,
        INFO,
        runtime_spec.Mount("/data", str(tree), "bind", ("rbind",)),
        runtime_spec.Mount("/data", str(tree), "bind", ("bind", "remount", "ro", "nosuid")),
        runtime_spec.Mount("/scratch", "tmpfs", "tmpfs", ("size=1m",)),
        runtime_spec.Mount("/scratch", "tmpfs", "tmpfs", ("remount", "size=2m", "noexec")),
    )
    assert {"ro", "nosuid"} <= info(text, "/data")[0]
    assert "noexec" in info(text, "/scratch")[0]
    assert "size=2048k" in text


def test_superblock_flags_are_set(runner: ContainerRunner) -> None:
    text = seen(
        runner,
        INFO,
        runtime_spec.Mount("/scratch", "tmpfs", "tmpfs", ("sync", "dirsync", "size=1m")),
    )
    line = next(x for x in text.splitlines() if " /scratch " in x)
    assert {"sync", "dirsync"} <= set(line.split()[-1].split(","))


def test_tmpcopyup_keeps_modes_owners_links(runner: ContainerRunner) -> None:
    source = runner.layer / "srv"
    if not source.exists():
        (source / "deep").mkdir(parents=True)
        (source / "deep/file").write_text("text\n")
        os.chown(source / "deep/file", 12, 34)
        (source / "deep/file").chmod(0o4711)
        os.link(source / "deep/file", source / "again")
        (source / "link").symlink_to("deep/file")
        (source / "deep").chmod(0o1770)
    script = (
        "stat -c '%a %u:%g %h' /srv/deep/file; cat /srv/again; readlink /srv/link;"
        "stat -c %a /srv/deep; echo x 2>/dev/null > /srv/new && echo written || echo refused"
    )
    for options, end in ((("tmpcopyup",), "written"), (("tmpcopyup", "ro"), "refused")):
        text = seen(runner, script, runtime_spec.Mount("/srv", "tmpfs", "tmpfs", options))
        assert text.splitlines() == ["4711 12:34 2", "text", "deep/file", "1770", end], text


@pytest.mark.parametrize(
    ("kind", "data"),
    [("ramfs", ()), ("mqueue", ()), ("tmpfs", ("size=1m",)), ("devpts", ("newinstance",))],
)
def test_any_file_system_is_mounted(
    runner: ContainerRunner, kind: str, data: tuple[str, ...]
) -> None:
    text = seen(runner, INFO, runtime_spec.Mount("/x", kind, kind, data))
    assert info(text, "/x")[2] == kind


def test_overlay_with_a_long_list_of_layers(runner: ContainerRunner, tmp_path: Path) -> None:
    lab_visible = tmp_path / ("long" * 30)
    names = []
    for n in range(4):
        (lab_visible / str(n)).mkdir(parents=True)
        (lab_visible / str(n) / f"f{n}").write_text("")
        names.append(str(lab_visible / str(n)))
    for parent in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(parent, os.stat(parent).st_mode | 0o711)
    requested = runtime_spec.Mount("/x", "overlay", "overlay", (f"lowerdir={':'.join(names)}",))
    assert seen(runner, "ls /x", requested).split() == ["f0", "f1", "f2", "f3"]


def test_an_unknown_file_system_type_is_named(runner: ContainerRunner) -> None:
    assert "nosuchfs" in refused(runner, runtime_spec.Mount("/x", "x", "nosuchfs"))
    assert "has no type" in refused(runner, runtime_spec.Mount("/x", "x"))


def test_an_option_that_the_file_system_refuses_is_explained(runner: ContainerRunner) -> None:
    output = refused(runner, runtime_spec.Mount("/x", "tmpfs", "tmpfs", ("nonsense=1",)))
    assert "nonsense" in output


@pytest.mark.parametrize(
    "destination", ["relative/place", "/a/../relative/place", "/./relative//place"]
)
def test_every_destination_is_below_the_root(
    runner: ContainerRunner, tree: Path, destination: str
) -> None:
    if "/a/" in destination:
        (runner.layer / "a").mkdir(exist_ok=True)
    requested = runtime_spec.Mount(destination, str(tree), "bind", ("ro",))
    assert seen(runner, "cat /relative/place/file", requested) == "top\n"


@pytest.mark.parametrize("target", ["/proc", "/proc/self/fd", "proc/sys"])
def test_a_link_of_the_image_into_proc_is_refused(
    runner: ContainerRunner, tree: Path, target: str
) -> None:
    link = runner.layer / "trap"
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    output = refused(runner, runtime_spec.Mount("/trap", str(tree), "bind", ("ro",)))
    assert "proc" in output or "fd" in output or "sys" in output
    link.unlink()


def test_a_link_out_of_the_root_stays_inside(runner: ContainerRunner, tree: Path) -> None:
    link = runner.layer / "out"
    link.unlink(missing_ok=True)
    link.symlink_to("../../../../made-inside-only")
    requested = runtime_spec.Mount("/out/x", str(tree), "bind", ("ro",))
    assert seen(runner, "cat /made-inside-only/x/file", requested) == "top\n"
    assert not Path("/made-inside-only").exists()
    link.unlink()
