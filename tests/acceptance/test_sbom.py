"""The packages of a real image, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from harness.engine import PrivateEngine


def test_the_packages_of_an_image_are_listed(
    engine: PrivateEngine, debian: str, tmp_path: Path
) -> None:
    done = engine.cli("jaula", "image", "sbom", debian)
    assert done.returncode == 0, done.stderr + engine.log_tail()
    document = json.loads(done.stdout)
    assert document["spdxVersion"] == "SPDX-2.3"
    found = {package["name"]: package["versionInfo"] for package in document["packages"]}
    inside = engine.cli("jaula", "run", "--rm", debian, "dpkg-query", "-W", "-f", "${Package}\\n")
    assert sorted(inside.stdout.split()) == sorted(name for name in found if ":" not in name)
    assert engine.cli("jaula", "image", "sbom", debian).stdout == done.stdout
    file = tmp_path / "a.json"
    words = ("image", "sbom", "--format", "cyclonedx", "-o", str(file), debian)
    assert engine.cli("jaula", *words).returncode == 0
    assert json.loads(file.read_text())["bomFormat"] == "CycloneDX"


def test_bad_input_is_one_clear_line(engine: PrivateEngine, busybox: str) -> None:
    for words, told in (
        (("--format", "csv", busybox), "unknown form 'csv' (one of spdx, cyclonedx)"),
        (("nothing:1",), "No such image: nothing:1"),
        (("-o", "/nonexistent/x", busybox), "cannot write /nonexistent/x"),
    ):
        done = engine.cli("jaula", "image", "sbom", *words)
        assert (done.returncode, told in done.stderr) == (1, True), done.stderr
