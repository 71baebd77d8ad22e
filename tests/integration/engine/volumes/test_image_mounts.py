"""``--mount type=image``: the files of an image in a container of another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers, leaks
from harness.engine import PrivateEngine
from harness.images import directory, file, import_image, link

TOOL = "image-mount-tool"


@pytest.fixture(scope="module")
def tool(engine: PrivateEngine) -> Iterator[str]:
    """An image of two layers with files of several owners."""
    entries = [
        directory("bin"),
        file("bin/tool", b"#!/bin/sh\necho from the tool\n", 0o755),
        directory("data"),
        file("data/value", b"42\n"),
        link("outside", "/etc"),
    ]
    import_image(engine, f"{TOOL}-base", entries)
    dockerfile = f"FROM {TOOL}-base\nCOPY --from={TOOL}-base /data /copy\n"
    done = engine.cli("jaula", "build", "-q", "-t", TOOL, "-", input=dockerfile)
    assert done.returncode == 0, done.stderr
    yield TOOL
    engine.cli("jaula", "rmi", "-f", TOOL, f"{TOOL}-base")


def mount(source: str, target: str = "/tool", **more: str) -> tuple[str, str]:
    words = [f"{key.replace('_', '-')}={value}" for key, value in more.items()]
    return "--mount", ",".join(("type=image", f"source={source}", f"target={target}", *words))


@pytest.mark.parametrize("flags", [(), ("--userns", "host"), ("--read-only",)])
def test_the_files_are_readable_and_owned_by_the_images_users(
    engine: PrivateEngine, busybox: str, tool: str, flags: tuple[str, ...]
) -> None:
    with containers.running(engine, busybox, flags=(*mount(tool), *flags)) as name:
        shown = engine.cli("jaula", "exec", name, "cat", "/tool/data/value", "/tool/copy/value")
        assert shown.stdout == "42\n42\n"
        owner = engine.cli("jaula", "exec", name, "stat", "-c", "%u:%g", "/tool/data/value")
        assert owner.stdout == "0:0\n"
        assert engine.cli("jaula", "exec", name, "/tool/bin/tool").stdout == "from the tool\n"
        (document,) = containers.inspect(engine, name)["Mounts"]
        assert (document["Type"], document["Source"], document["RW"]) == ("image", tool, False)
        row = containers.mountinfo(containers.pid(engine, name))["/tool"]
        assert {"ro", "nosuid", "nodev"} <= row.options
        report = engine.cli("jaula", "verify", name)
        assert report.returncode == 0, report.stdout
        assert "image /tool" in report.stdout


@pytest.mark.parametrize("words", ["touch /tool/new", "mount -o remount,rw /tool"])
def test_no_process_inside_can_write_to_the_image(
    engine: PrivateEngine, busybox: str, tool: str, words: str
) -> None:
    flags = (*mount(tool), "--privileged")
    done = engine.cli(
        "jaula", "run", "--rm", *flags, busybox, "sh", "-c", f"{words}; touch /tool/x"
    )
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize(
    ("subpath", "command", "output"),
    [
        ("data", "cat /tool/value", "42\n"),
        ("data/value", "cat /tool", "42\n"),
        ("./copy/../data", "ls /tool", "value\n"),
    ],
)
def test_a_part_of_the_image(
    engine: PrivateEngine, busybox: str, tool: str, subpath: str, command: str, output: str
) -> None:
    flags = mount(tool, image_subpath=subpath)
    done = engine.cli("jaula", "run", "--rm", *flags, busybox, "sh", "-c", command)
    assert (done.returncode, done.stdout) == (0, output), done.stderr


def test_a_link_in_the_image_does_not_lead_to_the_host(
    engine: PrivateEngine, busybox: str, tool: str
) -> None:
    Path("/etc/jaula-image-mount").write_text("of the host")
    try:
        for subpath in ("outside", "outside/jaula-image-mount"):
            flags = mount(tool, image_subpath=subpath)
            done = engine.cli("jaula", "run", "--rm", *flags, busybox, "cat", "/tool")
            assert done.returncode != 0
            assert "of the host" not in done.stdout
    finally:
        Path("/etc/jaula-image-mount").unlink()


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ("absent-image", {}, "No such image"),
        (TOOL, {"image_subpath": "none"}, "'none' is not in image"),
        (TOOL, {"image_subpath": "../etc"}, "subpath must be a relative path within the image"),
        (TOOL, {"image_subpath": "/etc"}, "subpath must be a relative path within the image"),
        (TOOL, {"volume_subpath": "x"}, "cannot mix 'volume-*' options with mount type 'image'"),
    ],
)
def test_an_invalid_mount_is_refused_and_leaves_nothing(
    engine: PrivateEngine,
    busybox: str,
    tool: str,
    source: str,
    more: dict[str, str],
    message: str,
) -> None:
    before = leaks.of_containers(engine)  # a container of the worker's other tests may run

    def leaves_nothing() -> bool:
        left = leaks.of_containers(engine)
        return all(set(found) <= set(before.get(kind, ())) for kind, found in left.items())

    name = containers.unique()
    words = ("run", "--name", name, *mount(source, **more), busybox, "true")
    done = engine.cli("jaula", *words)
    assert done.returncode == 125
    assert message in done.stderr
    engine.request("DELETE", f"/containers/{name}?force=1")
    containers.eventually(leaves_nothing, f"nothing left beside {before}")


def test_a_mounted_image_is_in_use_and_outlives_its_name(
    engine: PrivateEngine, busybox: str
) -> None:
    reference = f"{TOOL}-kept"
    import_image(engine, reference, [directory("d"), file("d/f", b"kept")])
    identifier = engine.request("GET", f"/images/{reference}/json").json()["Id"]
    with containers.running(engine, busybox, flags=mount(reference)) as name:
        refused = engine.cli("jaula", "rmi", identifier)
        assert refused.returncode == 1
        assert "is being used by running container" in refused.stderr
        import_image(engine, reference, [directory("e")])  # the name moves to another image
        engine.request("POST", "/images/prune")
        assert engine.cli("jaula", "restart", "-t", "0", name).returncode == 0
        assert engine.cli("jaula", "exec", name, "cat", "/tool/d/f").stdout == "kept"
        assert engine.request("GET", f"/images/{identifier}/json").status == 200
    assert engine.cli("jaula", "rmi", "-f", reference, identifier).returncode == 0


def test_volumes_from_passes_images_on(engine: PrivateEngine, busybox: str, tool: str) -> None:
    with containers.running(engine, busybox, flags=mount(tool)) as name:
        words = ("run", "--rm", "--volumes-from", name, busybox, "cat", "/tool/data/value")
        assert engine.cli("jaula", *words).stdout == "42\n"


def test_the_engine_keeps_no_mount(engine: PrivateEngine, busybox: str, tool: str) -> None:
    assert engine.process is not None
    table = Path(f"/proc/{engine.process.pid}/mountinfo")
    before = table.read_text().count("/images/")
    with containers.running(engine, busybox, flags=mount(tool)) as name:
        assert table.read_text().count("/images/") == before
        run = engine.run / "containers" / containers.inspect(engine, name)["Id"] / "images"
        assert not run.exists()
