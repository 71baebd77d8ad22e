"""The version of a build: git's tag, the constant of a tree without one, Debian's order."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from harness.engine import PROJECT
from jaula import __version__


@pytest.fixture(scope="module")
def version() -> ModuleType:
    path = PROJECT / "packaging/version.py"
    spec = importlib.util.spec_from_file_location("jaula_build_version", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one commit, whose constant is 0.3.0."""
    module = tmp_path / "src/jaula/__init__.py"
    module.parent.mkdir(parents=True)
    module.write_text('"""A package."""\n\n__version__ = "0.3.0"\n')
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def git(tree: Path, *words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    command = ("git", "-C", str(tree), *settings, *words)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(tree: Path) -> None:
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "--allow-empty", "-m", "Change")


def test_without_a_tag_the_version_is_the_constant(version: ModuleType, tree: Path) -> None:
    assert version.version(tree) == "0.3.0"


def test_at_a_tag_and_after_it(version: ModuleType, tree: Path) -> None:
    git(tree, "tag", "v0.3.0")
    assert version.version(tree) == "0.3.0"
    commit(tree)
    name = git(tree, "rev-parse", "--short=9", "HEAD")
    assert version.version(tree) == f"0.3.0.post1+g{name}"
    module = tree / version.MODULE
    module.write_text(version.with_version(module.read_text(), "0.4.0"))
    assert version.version(tree) == f"0.4.0.dev1+g{name}"


def test_other_tags_do_not_count(version: ModuleType, tree: Path) -> None:
    git(tree, "tag", "nightly")
    assert version.version(tree) == "0.3.0"


def test_an_archive_inside_another_repository_has_its_constant(
    version: ModuleType, tree: Path
) -> None:
    git(tree, "tag", "v9.0.0")
    inner = tree / "jaula-0.3.0/src/jaula"
    inner.mkdir(parents=True)
    (inner / "__init__.py").write_text('__version__ = "0.3.0"\n')
    assert version.version(tree / "jaula-0.3.0") == "0.3.0"


@pytest.mark.parametrize("tag", ["v0.3.0 beta-1-gabc", "v1-0-gabc", "v1.0-rc1-0-gabc", "garbage"])
def test_a_tag_of_another_form_is_an_error(version: ModuleType, tag: str) -> None:
    with pytest.raises(ValueError, match="the tag must be v and a version"):
        version.of_description("0.3.0", tag)


def test_a_module_without_the_constant_is_an_error(version: ModuleType) -> None:
    with pytest.raises(ValueError, match="has no line __version__"):
        version.constant_version("version = 1\n")


def test_versions_are_in_dpkgs_order(version: ModuleType) -> None:
    pep440 = ["0.2.0", "0.3.0.dev1+gabc", "0.3.0a1", "0.3.0rc1", "0.3.0", "0.3.0.post2+gabc"]
    debian = [version.debian(value) for value in pep440]
    for earlier, later in itertools.pairwise(debian):
        words = ["dpkg", "--compare-versions", earlier, "lt", later]
        assert subprocess.run(words, check=False).returncode == 0, (earlier, later)


def test_the_constant_is_read_from_the_package(version: ModuleType) -> None:
    text = (PROJECT / version.MODULE).read_text()
    assert version.constant_version(text) == __version__
