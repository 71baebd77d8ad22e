"""Instructions for the extras of the wheel, by the way that jaula was installed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from jaula import extras

PROJECT = Path(__file__).parents[2]
DECLARED = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
EXTRAS = sorted(DECLARED["optional-dependencies"])


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_instruction_names_a_package_of_pypi_that_does_not_exist(
    extra: str, tmp_path: Path
) -> None:
    for directory in ("", "/usr/lib/jaula/jaula", str(tmp_path / "site-packages/jaula")):
        text = extras.instruction(extra, directory)
        assert f"'jaula[{extra}]'" not in text and f"install jaula[{extra}]" not in text
        assert extra in text


def test_the_web_view_of_a_distribution_is_a_package_of_its_own() -> None:
    assert extras.instruction("web", "/usr/lib/jaula/jaula") == "install the package jaula-web"
    control = (PROJECT / "packaging/debian/control").read_text()
    assert all(f"\nPackage: {package}\n" in control for package in extras.PACKAGED.values())


def test_an_extra_without_a_package_needs_the_wheel() -> None:
    text = extras.instruction("harden", "/usr/lib/jaula/jaula")
    assert "packages of distributions do not have the extra harden" in text
    assert "'jaula-VERSION-py3-none-any.whl[harden]'" in text


def test_a_clone_names_its_own_set_up() -> None:
    assert extras.instruction("web") == f"run {PROJECT}/scripts/setup web"
    assert extras.instruction("otel") == (
        f"in {PROJECT}, run .venv/bin/python -m pip install '.[otel]'"
    )


def test_an_environment_of_pip_needs_the_wheel(tmp_path: Path) -> None:
    text = extras.instruction("otel-grpc", str(tmp_path / "lib/python3.13/site-packages/jaula"))
    assert "'jaula-VERSION-py3-none-any.whl[otel-grpc]'" in text
