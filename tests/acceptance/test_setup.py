"""scripts/setup without a network: from a wheelhouse, with the hashes of requirements/*.txt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.engine import PROJECT

PARTS = ("scripts", "requirements", "src", "jaula", "pyproject.toml")
pytestmark = [pytest.mark.packages, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what ./jaula needs, without an environment."""
    directory = tmp_path_factory.mktemp("clone")
    for part in PARTS:
        source = PROJECT / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, directory / part, ignore=ignored)
        else:
            shutil.copy(source, directory / part)
    return directory


@pytest.fixture(scope="module")
def wheelhouse(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel house")
    done = run([clone / "scripts/setup", "--download", directory])
    assert done.returncode == 0, done.stderr
    shutil.rmtree(clone / ".venv")
    return directory


def run(
    words: list[str | Path], *, network: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(() if network else ("unshare", "-n")), *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_wheel_with_another_hash_is_refused(
    clone: Path, wheelhouse: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "wheelhouse"
    shutil.copytree(wheelhouse, copy)
    (wheel,) = copy.glob("h11-*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"x")
    done = run([clone / "scripts/setup", "--offline", copy], network=False)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (clone / ".venv/.done-runtime").exists()


def test_the_first_command_works_without_a_network(clone: Path, wheelhouse: Path) -> None:
    words: list[str | Path] = [clone / "jaula", "--version"]
    done = run(words, network=False, JAULA_WHEELHOUSE=str(wheelhouse))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("jaula version ")
    assert "msgspec==" in done.stderr  # listed before it is installed


def test_a_removed_version_of_python_renews_the_environment(
    clone: Path, wheelhouse: Path, tmp_path: Path
) -> None:
    """A distribution that changes python3, and removes the former version later."""
    version = f"python3.{sys.version_info[1]}"
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    shutil.copy(f"/usr/bin/{version}", tmp_path / "bin")
    (tmp_path / "lib" / version).symlink_to(f"/usr/lib/{version}")
    link = tmp_path / "bin/python3"
    link.symlink_to(version)
    shutil.rmtree(clone / ".venv", ignore_errors=True)
    words: list[str | Path] = [clone / "scripts/setup", "--offline", wheelhouse]
    done = run(words, network=False, JAULA_PYTHON=str(link))
    assert done.returncode == 0, done.stderr

    link.unlink()
    link.symlink_to("/bin/false")
    words = [clone / "jaula", "--version"]
    done = run(words, network=False)
    assert (done.returncode, done.stderr) == (0, "")

    (tmp_path / "bin" / version).unlink()
    done = run(words, network=False, JAULA_WHEELHOUSE=str(wheelhouse))
    assert (done.returncode, done.stdout[:14]) == (0, "jaula version "), done.stderr
    assert "creating .venv" in done.stderr
    done = run(words, network=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("option", ["--offline", "--download"])
def test_an_option_without_its_directory_is_an_error(clone: Path, option: str) -> None:
    done = run([clone / "scripts/setup", option])
    assert done.returncode == 2
    assert "needs a directory" in done.stderr


def test_a_wheelhouse_that_does_not_exist_is_an_error(clone: Path) -> None:
    done = run([clone / "scripts/setup", "--offline", clone / "none"])
    assert done.returncode == 2
    assert "is not a directory" in done.stderr
