"""I3: host-side operations in a rootfs or volume go through held descriptors only."""

from __future__ import annotations

import io
import tarfile
import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from harness import containers, images
from harness.engine import PrivateEngine

# Swaps a directory of a shared volume with a link to the root, as fast as a shell can.
SWAP = "while :; do mkdir /v/x; rm -rf /v/x; ln -s / /v/x; rm -f /v/x; done 2>/dev/null"


@pytest.mark.parametrize("cve", ["CVE-2021-30465 CVE-2018-15664 CVE-2025-31133"])
def test_a_swapped_mount_target_never_leaves_the_root(
    engine: PrivateEngine, busybox: str, canary: Path, cve: str
) -> None:
    volume = containers.unique("race")
    flags = ("-v", f"{volume}:/v")
    probe = ("ls", "/v/x/mounted")
    with containers.running(engine, busybox, "sh", "-c", SWAP, flags=flags):
        for _ in range(12):
            done = engine.cli(
                *("jaula", "run", "--rm", *flags, "-v", f"{canary}/directory:/v/x/mounted"),
                *(busybox, *probe),
            )
            assert "Traceback" not in done.stderr
    assert not Path("/mounted").exists(), "a mount target was made on the host"
    engine.request("DELETE", f"/volumes/{volume}?force=1")


@pytest.mark.parametrize(
    ("cve", "target"),
    [
        ("CVE-2019-18466", "../../../../../../.."),
        ("CVE-2022-23648", "/"),
        ("CVE-2023-0778", "/proc/self/root"),
        ("CVE-2024-9341", "/proc/1/root"),
        ("CVE-2018-15664", "/../../.."),
    ],
)
def test_a_mount_target_behind_a_link_stays_in_the_root(
    engine: PrivateEngine, canary: Path, cve: str, target: str
) -> None:
    """The image has a link at the mount target: the target is created in the root or refused."""
    made = containers.unique("made")
    entries = [*images.busybox_entries(), images.link("out", target)]
    name = images.import_image(engine, "linked-target", entries)
    done = engine.cli(
        *("jaula", "run", "--rm", "-v", f"{canary}/directory:/out/{made}"),
        *(name, "ls", f"/{made}"),
    )
    assert "Traceback" not in done.stderr
    assert not Path(f"/{made}").exists()
    assert not Path(f"{canary.parent}/{made}").exists()


@pytest.mark.parametrize(
    ("cve", "target"),
    [("CVE-2022-23648", "../../../../../.."), ("CVE-2019-18466", "/"), ("CVE-2023-0778", "/etc")],
)
def test_a_volume_is_filled_from_the_image_only(
    engine: PrivateEngine, cve: str, target: str
) -> None:
    """A new volume is filled from the image's path at its target, which is a link out."""
    volume = containers.unique("fill")
    entries = [*images.busybox_entries(), images.link("data", target)]
    name = images.import_image(engine, "linked-volume", entries)
    done = engine.cli("jaula", "run", "--rm", "-v", f"{volume}:/data", name, "ls", "-a", "/data")
    assert "Traceback" not in done.stderr
    stored = engine.root / "lib" / "volumes" / volume / "_data"
    assert not (stored / "shadow").exists()
    assert not (stored / "usr").exists()
    engine.request("DELETE", f"/volumes/{volume}?force=1")


@pytest.mark.parametrize("name", ["etc", "etc/hosts", "etc/resolv.conf", "etc/hostname"])
@pytest.mark.parametrize("cve", ["CVE-2021-30465 CVE-2025-31133"])
def test_the_engines_own_files_are_not_written_through_links(
    engine: PrivateEngine, canary: Path, name: str, cve: str
) -> None:
    hidden = [
        n for n in ("etc", "etc/passwd", "etc/group") if n == name or n.startswith(name + "/")
    ]
    entries = images.busybox_entries(without=hidden)
    image = images.import_image(engine, "linked-etc", [*entries, images.link(name, str(canary))])
    done = engine.cli("jaula", "run", "--rm", image, "ls", "/")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["dev", "dev/null", "dev/shm", "dev/pts", "sys", "tmp"])
@pytest.mark.parametrize("cve", ["CVE-2025-31133 CVE-2025-52565"])
def test_links_in_place_of_the_engines_mounts_stay_in_the_root(
    engine: PrivateEngine, canary: Path, name: str, cve: str
) -> None:
    entries = [*images.busybox_entries(without=(name,)), images.link(name, str(canary))]
    image = images.import_image(engine, "linked-mounts", entries)
    done = engine.cli("jaula", "run", "--rm", image, "ls", "/")
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout


# -- copies ----------------------------------------------------------------------------------

# Swaps /x between a directory, a link out and a link in; the same for what lies in a directory.
RACE = """
while :; do
    mkdir /x 2>/dev/null; : > /x/f; rm -rf /x/f; ln -s /proc/self/root/etc /x/f
    rm -rf /x; ln -s {target} /x; mv /x /y; ln -s /tmp /x; rm -f /x /y
done 2>/dev/null
"""


def _archive(*names: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.mode = 7, 4321, 0o4777
            tar.addfile(info, io.BytesIO(b"planted"))
    return made.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("cve", ["CVE-2018-15664", "CVE-2019-14271 CVE-2024-1753"])
def test_a_copy_with_a_swapped_path_never_leaves_the_root(
    engine: PrivateEngine, busybox: str, canary: Path, cve: str
) -> None:
    """A process inside renames path and link in a loop while threads copy in and out."""
    target = "../../../../../../.." + str(canary)
    data = _archive("f", "f/secret", "secret", f"{str(canary).lstrip('/')}/secret")
    result: list[bytes] = []
    done = threading.Event()

    def copy(name: str) -> None:
        for place in ("/x", "/x/f", "/x/", "/y/f"):
            engine.request("PUT", f"/containers/{name}/archive?path={quote(place)}", data)
            for below in ("", "/secret", "/."):
                path = quote(place + below)
                result.append(engine.request("GET", f"/containers/{name}/archive?path={path}").body)

    def repeat(name: str) -> None:
        while not done.is_set():
            copy(name)

    with containers.running(engine, busybox, "sh", "-c", RACE.format(target=target)) as name:
        threads = [threading.Thread(target=repeat, args=(name,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        done.wait(6)
        done.set()
        for thread in threads:
            thread.join()
    assert len(result) > 30
    assert not any(b"only the host may read this" in body for body in result)
    assert "Traceback" not in engine.log_tail()


@pytest.mark.parametrize(
    ("cve", "target"),
    [
        ("CVE-2018-15664", "/proc/self/root{canary}"),
        ("CVE-2018-15664", "/proc/1/cwd/../../../..{canary}"),
        ("CVE-2018-15664", "../../../../../../..{canary}"),
        ("CVE-2018-15664", "{canary}"),
        ("CVE-2024-21626", "/proc/self/fd/7/../../..{canary}"),
    ],
)
@pytest.mark.parametrize("running", [True, False])
def test_a_copy_through_a_link_stays_in_the_root(
    engine: PrivateEngine, canary: Path, cve: str, target: str, running: bool
) -> None:
    entries = [*images.busybox_entries(), images.link("out", target.format(canary=canary))]
    image = images.import_image(engine, "linked-copy", entries)
    with containers.running(engine, image) as name:
        if not running:
            engine.cli("jaula", "kill", name)
        for path in ("/out/secret", "/out/", "/out/."):
            reply = engine.request("GET", f"/containers/{name}/archive?path={path}")
            assert b"only the host may read this" not in reply.body
        put = f"/containers/{name}/archive?path="
        engine.request("PUT", f"{put}/out", _archive("secret", "planted"))
        engine.request("PUT", f"{put}/", _archive("out/secret", "out/planted"))
        link = engine.request("HEAD", f"/containers/{name}/archive?path=/out")
        assert link.status == 200


@pytest.mark.parametrize("path", ["/proc/sys/kernel", "/proc/1", "/sys/fs", "/sys/kernel"])
def test_a_copy_does_not_reach_kernel_files(engine: PrivateEngine, plain: str, path: str) -> None:
    """The engine may write to these files, a container may not."""
    reply = engine.request(
        "PUT", f"/containers/{plain}/archive?path={path}", _archive("core_pattern")
    )
    assert reply.status in (400, 403), reply
    reply = engine.request("GET", f"/containers/{plain}/archive?path={path}")
    assert reply.status == 400, reply
    archive = _archive("proc/sys/kernel/core_pattern", "sys/kernel/uevent_helper")
    assert engine.request("PUT", f"/containers/{plain}/archive?path=/", archive).status == 400


def test_a_copy_creates_no_device_node(engine: PrivateEngine, plain: str) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        info = tarfile.TarInfo("disk")
        info.type, info.devmajor, info.devminor = tarfile.BLKTYPE, 8, 0
        tar.addfile(info)
    path = f"/containers/{plain}/archive?path=/tmp"
    assert engine.request("PUT", path, made.getvalue()).status == 400


def test_copied_files_have_ids_of_the_container(engine: PrivateEngine, plain: str) -> None:
    """A set-user-ID file never belongs to a user of the host."""
    path = f"/containers/{plain}/archive?path=/tmp"
    assert engine.request("PUT", path, _archive("raised")).status == 200
    facts = Path(f"/proc/{containers.pid(engine, plain)}/root/tmp/raised").stat()
    first = int(Path(f"/proc/{containers.pid(engine, plain)}/uid_map").read_text().split()[1])
    assert facts.st_uid == first + 4321


def test_a_hostile_archive_is_extracted_below_its_directory_only(
    engine: PrivateEngine, busybox: str, canary: Path, tmp_path: Path
) -> None:
    """The output of `cp` from a container contains links to the canary."""
    script = (
        f"mkdir /d; ln -s {canary} /d/l; ln -s ../../../../../../../..{canary} /d/m;"
        "cp /bin/sh /d/sh; chmod 4755 /d/sh"
    )
    with containers.running(engine, busybox, "sh", "-c", f"{script}; sleep 600") as name:
        containers.eventually(
            lambda: engine.request("HEAD", f"/containers/{name}/archive?path=/d/sh").status == 200,
            "the tree is there",
        )
        (tmp_path / "to").mkdir()
        done = engine.cli("jaula", "cp", f"{name}:/d", f"{tmp_path}/to")
        assert done.returncode == 0, done.stderr
        swap = "rm /d/l; mkdir /d/l; echo x > /d/l/secret"
        engine.cli("jaula", "exec", name, "sh", "-c", swap)
        done = engine.cli("jaula", "cp", f"{name}:/d", f"{tmp_path}/to")
        assert "cannot overwrite non-directory" in done.stderr
    assert not (tmp_path / "to/d/sh").stat().st_mode & 0o6000


def linked_image(engine: PrivateEngine, name: str, target: str) -> str:
    """Import busybox with a symbolic link in place of a directory."""
    entries = [*images.busybox_entries(without=(name,)), images.link(name, target)]
    return images.import_image(engine, f"linked-{containers.unique()}", entries)


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
@pytest.mark.parametrize("target", ["/data", "data", "../../data", "/absent"])
def test_a_link_in_place_of_a_system_directory_is_refused(
    engine: PrivateEngine, canary: Path, name: str, target: str
) -> None:
    """CVE-2026-41579: device nodes and links were made where the image's /dev led."""
    image = linked_image(engine, name, target)
    bind = f"{canary}/directory:/data"
    done = engine.cli("jaula", "run", "--rm", "-t", "-v", bind, image, "true")
    assert done.returncode == 125
    assert f"/{name} of the image is a symbolic link" in done.stdout + done.stderr
    assert list((canary / "directory").iterdir()) == []


@pytest.mark.parametrize("flags", [("-v", "{secret}:/link/new"), ("-v", "{volume}:/link/new/deep")])
@pytest.mark.parametrize("other", [(), ("--userns", "host")])
def test_no_mount_point_is_created_in_a_bind_mount_to_which_a_link_leads(
    engine: PrivateEngine, canary: Path, flags: tuple[str, str], other: tuple[str, ...]
) -> None:
    image = linked_image(engine, "link", "/data")
    volume = containers.unique("behind")
    own = (flags[0], flags[1].format(secret=canary / "secret", volume=volume))
    created = engine.cli(
        *("jaula", "create", "-v", f"{canary}/directory:/data", *own, *other, image, "true")
    )
    assert created.returncode == 0, created.stderr
    name = created.stdout.strip()
    started = engine.cli("jaula", "start", "-a", name)
    assert started.returncode != 0
    assert "a symbolic link of the image leads into a bind mount" in started.stderr
    copied = engine.cli("jaula", "cp", f"{name}:/bin/busybox", "-")
    assert "a symbolic link of the image leads into a bind mount" in copied.stderr
    assert list((canary / "directory").iterdir()) == []
    engine.cli("jaula", "rm", name)
    engine.cli("jaula", "volume", "rm", volume)


def test_no_working_directory_is_created_in_a_bind_mount_to_which_a_link_leads(
    engine: PrivateEngine, canary: Path
) -> None:
    image = linked_image(engine, "link", "/data")
    flags = ("-v", f"{canary}/directory:/data", "-w", "/link/new/deep")
    done = engine.cli("jaula", "run", "--rm", *flags, image, "busybox", "pwd")
    assert done.returncode == 125
    assert "a symbolic link of the image leads into a bind mount" in done.stderr
    assert list((canary / "directory").iterdir()) == []


def test_mount_points_behind_links_of_the_image_are_created_in_the_root(
    engine: PrivateEngine, canary: Path
) -> None:
    image = linked_image(engine, "link", "/run/there")
    flags = ("--tmpfs", "/run", "-v", f"{canary}/directory:/link/new")
    words = ("busybox", "grep", "-c", " /run/there/new ", "/proc/mounts")
    done = engine.cli("jaula", "run", "--rm", *flags, image, *words)
    assert done.stdout == "1\n", done.stderr
