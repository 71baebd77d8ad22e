"""The packages of a real image, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from harness import rpm_bdb
from harness.engine import PrivateEngine
from harness.images import directory, file, import_image


def test_the_packages_of_an_image_are_listed(
    engine: PrivateEngine, debian: str, tmp_path: Path
) -> None:
    done = engine.cli("jaula", "image", "sbom", debian)
    assert done.returncode == 0, done.stderr + engine.log_tail()
    document = json.loads(done.stdout)
    assert document["spdxVersion"] == "SPDX-2.3"
    result = {package["name"]: package["versionInfo"] for package in document["packages"]}
    inside = engine.cli("jaula", "run", "--rm", debian, "dpkg-query", "-W", "-f", "${Package}\\n")
    assert sorted(inside.stdout.split()) == sorted(name for name in result if ":" not in name)
    assert engine.cli("jaula", "image", "sbom", debian).stdout == done.stdout
    file = tmp_path / "a.json"
    words = ("image", "sbom", "--format", "cyclonedx", "-o", str(file), debian)
    assert engine.cli("jaula", *words).returncode == 0
    assert json.loads(file.read_text())["bomFormat"] == "CycloneDX"


def test_the_packages_of_an_image_with_the_oldest_database_of_rpm_are_listed(
    engine: PrivateEngine, tmp_path: Path
) -> None:
    headers = [
        rpm_bdb.header(
            name=f"p{number}", version="7", release="1", summary="s" * 9000, arch="noarch"
        )
        for number in range(1, 40)
    ]
    pairs = [(0, b"\x27\0\0\0"), *enumerate(headers, 1)]
    database = rpm_bdb.written(tmp_path / "Packages", pairs).read_bytes()
    system = b'ID="centos"\nVERSION_ID="7"\n'
    places = [directory(name) for name in ("etc", "var", "var/lib", "var/lib/rpm")]
    for name, content, status, reported in (
        ("oldest", database, 0, ""),
        ("cut-off", database[: len(database) // 2], 1, "var/lib/rpm/Packages is damaged: page "),
    ):
        entries = [file("etc/os-release", system), file("var/lib/rpm/Packages", content)]
        image = import_image(engine, name, places + entries)
        try:
            done = engine.cli("jaula", "image", "sbom", image)
            assert (done.returncode, reported in done.stderr) == (status, True), done.stderr
            if status == 0:
                listed = {p["name"] for p in json.loads(done.stdout)["packages"]}
                assert {f"p{number}" for number in range(1, 40)} <= listed
                assert "pkg:rpm/centos/p39@7-1?arch=noarch&distro=centos-7" in done.stdout
        finally:
            engine.cli("jaula", "rmi", image)


def test_invalid_input_is_one_clear_line(engine: PrivateEngine, busybox: str) -> None:
    for words, reported in (
        (("--format", "csv", busybox), "unknown format 'csv' (must be one of spdx, cyclonedx)"),
        (("nothing:1",), "No such image: nothing:1"),
        (("-o", "/nonexistent/x", busybox), "cannot write /nonexistent/x"),
    ):
        done = engine.cli("jaula", "image", "sbom", *words)
        assert (done.returncode, reported in done.stderr) == (1, True), done.stderr


def test_a_hostile_database_of_packages_takes_no_memory_of_the_engine(
    engine: PrivateEngine,
) -> None:
    places = [directory(name) for name in ("var", "var/lib", "var/lib/dpkg", "root")]
    hidden = [
        directory("root/private", 0o700),
        directory("root/private/x-1.dist-info", 0o700),
        file("root/private/x-1.dist-info/METADATA", b"Name: hidden\nVersion: 1\n", 0o600),
    ]
    lines = b"Package: a\nStatus: install ok installed\nVersion: 1\nX: y\n" + b" z\n" * (12 << 20)
    image = import_image(engine, "hostile", [*places, *hidden, file("var/lib/dpkg/status", lines)])
    try:
        before = _peak_memory(engine)
        done = engine.cli("jaula", "image", "sbom", image)
        assert done.returncode == 0, done.stderr + engine.log_tail()
        listed = {package["name"] for package in json.loads(done.stdout)["packages"]}
        assert listed == {"hostile:latest", "a", "hidden"}
        assert _peak_memory(engine) - before < 64 << 10
    finally:
        engine.cli("jaula", "rmi", image)


def _peak_memory(engine: PrivateEngine) -> int:
    """Return the peak of the engine's resident memory in kB."""
    assert engine.process is not None
    status = Path(f"/proc/{engine.process.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
