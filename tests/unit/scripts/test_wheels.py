"""The platforms of wheels, which ``scripts/setup --download`` and packages have in common."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from harness.engine import PROJECT
from harness.scripts import load_program

NEWEST = "manylinux_2_34"
"""A platform that pip of this machine prefers, and that packages do not permit."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree whose only requirement is ``sample``, and a pip that knows only the index."""
    root = tmp_path / "tree"
    shutil.copytree(PROJECT / "requirements", root / "requirements")
    (root / "scripts").mkdir()
    shutil.copy(PROJECT / "scripts/setup", root / "scripts")
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (root / ".venv/.done-runtime").touch()
    index = tmp_path / "index"
    index.mkdir()
    wheels = [sample(index, platform) for platform in (NEWEST, "manylinux_2_28")]
    hashes = (hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels)
    options = " ".join(f"--hash=sha256:{each}" for each in hashes)
    (root / "requirements/runtime.txt").write_text(f"sample==1.0 {options}\n")
    return root


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program ``packaging/install``."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which it sets
    monkeypatch.syspath_prepend(str(PROJECT / "packaging"))
    return load_program("../packaging/install")


def sample(directory: Path, platform: str) -> Path:
    """Write a wheel of a platform."""
    tag = f"py3-none-{platform}_{os.uname().machine}"
    wheel = directory / f"sample-1.0-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sample.py", f"PLATFORM = {platform!r}\n")
        information = "sample-1.0.dist-info"
        metadata = "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n"
        archive.writestr(f"{information}/METADATA", metadata)
        wheel_file = f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n"
        archive.writestr(f"{information}/WHEEL", wheel_file)
        archive.writestr(f"{information}/RECORD", "")
    return wheel


def test_a_download_has_wheels_for_packages(
    tree: Path, tmp_path: Path, package: ModuleType
) -> None:
    wheels = tmp_path / "wheels"
    environment = {
        **os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index"),
        "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    done = subprocess.run(
        [tree / "scripts/setup", "--download", wheels], env=environment, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.iterdir()
    assert wheel.name.endswith(f"-manylinux_2_28_{os.uname().machine}.whl")
    assert (tree / ".venv/.done-runtime").exists()

    target = package.Target(tmp_path / "root", sys.executable, "", 0)
    target.library.mkdir(parents=True)
    package.install_wheels(target, wheels, tree / "requirements/runtime.txt", frozenset())
    assert (target.library / "sample.py").read_text() == "PLATFORM = 'manylinux_2_28'\n"


def test_a_wheel_of_another_platform_is_refused_with_the_remedy(
    tree: Path, tmp_path: Path, package: ModuleType
) -> None:
    (tmp_path / "index" / f"sample-1.0-py3-none-manylinux_2_28_{os.uname().machine}.whl").unlink()
    target = package.Target(tmp_path / "root", sys.executable, "", 0)
    lock = tree / "requirements/runtime.txt"
    with pytest.raises(SystemExit, match="scripts/build-deb --download-only"):
        package.install_wheels(target, tmp_path / "index", lock, frozenset())


def test_no_platform_needs_a_newer_library_than_the_packages() -> None:
    control = (PROJECT / "packaging/debian/control").read_text()
    (libc,) = re.findall(r"libc6 \(>= 2\.(\d+)\)", control)
    text = (PROJECT / "requirements/platforms").read_text()
    versions = [int(each) for each in re.findall(r"^manylinux_2_(\d+)$", text, re.MULTILINE)]
    assert versions == sorted(versions, reverse=True)
    assert versions[0] == int(libc)
