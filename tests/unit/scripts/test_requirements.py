"""requirements/*.txt pin every package with hashes, within the ranges of pyproject.toml."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.engine import PROJECT

FILES = ("runtime", "test", "schemas")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Return the pinned requirement and the hashes of each package of a file."""
    text = (PROJECT / "requirements" / f"{name}.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pinned: dict[str, tuple[Requirement, list[str]]] = {}
    for entry in "\n".join(lines).replace("\\\n", " ").splitlines():
        head, *hashes = re.split(r"\s+(?=--hash)", entry.strip())
        requirement = Requirement(head)
        pinned[canonicalize_name(requirement.name)] = (requirement, hashes)
    return pinned


def project() -> dict[str, list[Requirement]]:
    table = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    runtime = [Requirement(text) for text in table["dependencies"]]
    test = [Requirement(text) for text in table["optional-dependencies"]["test"]]
    return {"runtime": runtime, "test": runtime + test}


@pytest.mark.parametrize("name", FILES)
def test_every_package_has_one_version_and_hashes(name: str) -> None:
    for requirement, hashes in entries(name).values():
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert hashes
        assert all(HASH.fullmatch(word) for word in hashes)


@pytest.mark.parametrize("name", ["runtime", "test"])
def test_the_versions_are_within_the_ranges_of_the_project(name: str) -> None:
    pinned = entries(name)
    for requirement in project()[name]:
        (specifier,) = pinned[canonicalize_name(requirement.name)][0].specifier
        assert requirement.specifier.contains(specifier.version), requirement


def test_the_tests_run_with_the_versions_of_the_runtime() -> None:
    test = entries("test")
    for name, (requirement, hashes) in entries("runtime").items():
        assert (test[name][0], test[name][1]) == (requirement, hashes)
