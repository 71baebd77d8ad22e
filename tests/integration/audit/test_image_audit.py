"""``jaula image audit``: weakened images fail their own controls and no other."""

from __future__ import annotations

import base64
import json
import os
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.engine import PrivateEngine
from jaula.features.verify.checks.set_user_id import CAPABILITY

KEY = b"-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(bytes(range(48))) + b"\n"
GOOD = "USER 1000\nHEALTHCHECK CMD true\n"
BASE = "org.opencontainers.image.base"

# name: Dockerfile after FROM, the controls that fail.
IMAGES: dict[str, tuple[str, set[str]]] = {
    "good": (f'LABEL {BASE}.digest="sha256:{"a" * 64}"\n{GOOD}', set()),
    "root": ("HEALTHCHECK CMD true\n", {"user"}),
    "unpinned": (f'LABEL {BASE}.name="docker.io/library/busybox:1"\n{GOOD}', {"pinned-base"}),
    "set-user-id": ("RUN cp /bin/busybox /bin/su2 && chmod 6755 /bin/su2\n" + GOOD,
                    {"set-user-id"}),
    "cleared": ("RUN cp /bin/busybox /bin/su2 && chmod 4755 /bin/su2\nRUN rm /bin/su2\n" + GOOD,
                set()),
    "writable": ("RUN mkdir -p /srv/x && chmod 777 /srv/x && touch /y && chmod 666 /y\n" + GOOD,
                 {"world-writable"}),
    "key": ("COPY key /root/.ssh/id\n" + GOOD, {"file-secrets"}),
    "removed-key": ("COPY key /root/.ssh/id\nRUN rm -r /root/.ssh\n" + GOOD, {"file-secrets"}),
    "variable": ("ENV DB_PASSWORD=hunter2\n" + GOOD, {"environment-secrets", "history-secrets"}),
    "step": ("RUN API_TOKEN=abc true\n" + GOOD, {"history-secrets"}),
    "cache": ("RUN mkdir -p /var/cache/apk && head -c 2000000 /dev/zero > /var/cache/apk/x\n"
              + GOOD, {"package-caches"}),
    "packages": ("COPY status /var/lib/dpkg/status\nCOPY os-release /etc/os-release\n" + GOOD,
                 set()),
}  # fmt: skip
STATUS = """Package: libssl3t64
Status: install ok installed
Source: openssl
Version: 3.5.1-1
"""
RELEASE = 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n'
TRACKER = {"openssl": {"CVE-2026-1": {"releases": {"trixie": {
    "status": "resolved", "fixed_version": "3.5.1-2", "urgency": "high"}}}}}  # fmt: skip


@pytest.fixture(scope="module")
def built(
    engine: PrivateEngine, busybox: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Return the names of the images."""
    context = tmp_path_factory.mktemp("context")
    (context / "key").write_bytes(KEY)
    (context / "status").write_text(STATUS)
    (context / "os-release").write_text(RELEASE)
    names = {}
    try:
        for name, (text, _) in IMAGES.items():
            (context / "Dockerfile").write_text(f"FROM {busybox}\n{text}")
            names[name] = containers.unique(f"audited-{name}") + ":1"
            done = engine.cli("jaula", "build", "-q", "-t", names[name], str(context))
            assert done.returncode == 0, done.stderr
        yield names
    finally:
        engine.cli("jaula", "rmi", "-f", *names.values())


def audit(engine: PrivateEngine, *words: str) -> dict[str, Any]:
    done = engine.cli("jaula", "image", "audit", "--format", "json", *words)
    assert done.returncode in (0, 1) and done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def failing(report: dict[str, Any], subject: str) -> set[str]:
    return {
        control["id"]
        for control in report["controls"]
        for finding in control["findings"]
        if finding["subject"] == subject and finding["state"] in ("fail", "unknown")
    }


def evidence(report: dict[str, Any], id: str) -> str:
    [control] = [each for each in report["controls"] if each["id"] == id]
    return str(control["findings"][0]["evidence"])


def test_images_fail_the_controls_of_their_dockerfiles(
    engine: PrivateEngine, built: dict[str, str]
) -> None:
    report = audit(engine, *built.values())
    found = {name: failing(report, built[name]) for name in IMAGES}
    assert found == {name: expected for name, (_, expected) in IMAGES.items()}


def test_a_removed_file_is_named_with_its_layer(
    engine: PrivateEngine, built: dict[str, str]
) -> None:
    assert evidence(audit(engine, built["removed-key"]), "file-secrets") == (
        "1 file: /root/.ssh/id (a private key, removed by a higher layer)"
    )
    report = json.dumps(audit(engine, built["variable"]))
    assert "DB_PASSWORD" in report and "hunter2" not in report


def test_file_capabilities_are_read(engine: PrivateEngine, built: dict[str, str]) -> None:
    """The capability is set on the layer: the base image has no setcap."""
    document = engine.request("GET", f"/images/{built['set-user-id']}/json").json()
    top = document["RootFS"]["Layers"][-1].removeprefix("sha256:")
    program = Path(engine.root, "lib/layers", top, "fs/bin/su2")
    os.setxattr(program, CAPABILITY, bytes.fromhex("0100000200040000" + "00" * 12))
    try:
        assert "/bin/su2" in evidence(audit(engine, built["set-user-id"]), "file-capabilities")
    finally:
        os.removexattr(program, CAPABILITY)


def test_packages_are_compared_with_advisories(
    engine: PrivateEngine, built: dict[str, str], tmp_path: Path
) -> None:
    tracker = tmp_path / "tracker.json"
    tracker.write_text(json.dumps(TRACKER))
    report = audit(engine, "--advisories", str(tracker), built["packages"])
    assert failing(report, built["packages"]) == {"vulnerabilities"}
    text = evidence(report, "vulnerabilities")
    assert "libssl3t64 3.5.1-1: CVE-2026-1 (fixed in 3.5.1-2, high)" in text
    osv = {"id": "DEBIAN-CVE-2026-2", "affected": [{
        "package": {"ecosystem": "Debian:13", "name": "openssl"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.5.0-9"}]}],
    }]}  # fmt: skip
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.json", json.dumps(osv))
    report = audit(engine, "--advisories", str(archive), built["packages"])
    assert failing(report, built["packages"]) == set()
    assert "none of 1 package is in the advisories" in evidence(report, "vulnerabilities")


def test_formats_and_exit_status(
    engine: PrivateEngine, built: dict[str, str], tmp_path: Path
) -> None:
    done = engine.cli("jaula", "image", "audit", built["good"])
    assert done.returncode == 0, done.stdout
    done = engine.cli("jaula", "image", "audit", built["root"])
    assert done.returncode == 1 and re.search(r"^user +1 +fail ", done.stdout, re.MULTILINE)
    exceptions = tmp_path / "exceptions.toml"
    exceptions.write_text('[[exception]]\nid = "user"\nreason = "test"\nuntil = 2999-12-31\n')
    words = ("jaula", "image", "audit", "--exceptions", str(exceptions))
    assert engine.cli(*words, built["root"]).returncode == 0
    sarif = json.loads(engine.cli("jaula", "image", "audit", "--format", "sarif").stdout)
    assert sarif["runs"][0]["tool"]["driver"]["name"] == "jaula image audit"
    for output_format, start in (("junit", "<?xml"), ("html", "<!doctype html>")):
        done = engine.cli("jaula", "image", "audit", "--format", output_format, built["root"])
        assert done.stdout.startswith(start), done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("no-such-image",), "No such image"),
        (("--advisories", "/nonexistent/file"), "No such file"),
        (("--advisories", "/etc/hostname"), "advisories /etc/hostname"),
        (("--advisories", "/dev/null"), "/dev/null are empty"),
        (("--format", "xml"), "must be one of table, json, sarif, junit, html"),
    ],
)
def test_bad_input_is_one_clear_error(
    engine: PrivateEngine, busybox: str, words: tuple[str, ...], message: str
) -> None:
    done = engine.cli("jaula", "image", "audit", *words)
    assert done.returncode != 0 and message in done.stderr, done.stderr
    assert not done.stdout


def test_a_large_image_takes_seconds(engine: PrivateEngine, debian: str) -> None:
    before = time.monotonic()
    report = audit(engine, debian)
    assert "set-user-id" in failing(report, "debian:latest")
    assert time.monotonic() - before < 20
