"""I3: host-side operations in a rootfs or volume go through held descriptors only."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import containers, images
from harness.engine import PrivateEngine

# Swaps a directory of a shared volume with a link to the root, as fast as a shell can.
SWAP = "while :; do mkdir /v/x; rm -rf /v/x; ln -s / /v/x; rm -f /v/x; done 2>/dev/null"


@pytest.mark.parametrize("cve", ["CVE-2021-30465 CVE-2018-15664 CVE-2025-31133"])
def test_a_mount_target_that_is_swapped_never_leads_out(
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
def test_a_mount_target_through_a_link_stays_inside(
    engine: PrivateEngine, canary: Path, cve: str, target: str
) -> None:
    """The image has a link where the mount goes; the target is made inside the root or refused."""
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
def test_a_volume_is_filled_from_inside_the_image_only(
    engine: PrivateEngine, cve: str, target: str
) -> None:
    """A new volume is filled with what the image has at its target, which is a link out."""
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
def test_links_in_place_of_the_engines_mounts_do_not_lead_out(
    engine: PrivateEngine, canary: Path, name: str, cve: str
) -> None:
    entries = [*images.busybox_entries(without=(name,)), images.link(name, str(canary))]
    image = images.import_image(engine, "linked-mounts", entries)
    done = engine.cli("jaula", "run", "--rm", image, "ls", "/")
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stdout
