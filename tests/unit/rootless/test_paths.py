"""Directories of a rootless engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.rootless import xdg_paths


def test_root_has_the_systems_directories() -> None:
    assert (
        xdg_paths.root_directory(None, {"XDG_DATA_HOME": "/elsewhere"}, "/root") == "/var/lib/jaula"
    )
    assert xdg_paths.run_directory(None, {"XDG_RUNTIME_DIR": "/elsewhere"}, True) == "/run/jaula"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_DATA_HOME": "/data"}, "/data/jaula"),
        ({"HOME": "/h/me"}, "/h/me/.local/share/jaula"),
        ({"XDG_DATA_HOME": "relative", "HOME": "/h/me"}, "/h/me/.local/share/jaula"),
        ({"XDG_DATA_HOME": "", "HOME": ""}, "/home/known/.local/share/jaula"),
    ],
)
def test_data_is_in_the_xdg_base_directory(environment: dict[str, str], expected: str) -> None:
    assert xdg_paths.root_directory(1000, environment, "/home/known") == expected


@pytest.mark.parametrize(
    ("environment", "usual", "expected"),
    [
        ({"XDG_RUNTIME_DIR": "/run/user/1000"}, False, "/run/user/1000/jaula"),
        ({}, True, "/run/user/1000/jaula"),
        ({}, False, "/tmp/jaula-1000"),
        ({"XDG_RUNTIME_DIR": "here"}, False, "/tmp/jaula-1000"),
    ],
)
def test_the_socket_is_in_the_runtime_directory_or_a_private_one(
    environment: dict[str, str], usual: bool, expected: str
) -> None:
    assert xdg_paths.run_directory(1000, environment, usual) == expected


def test_a_rootless_engine_knows_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(xdg_paths.ROOTLESS_ENV, "1000")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert xdg_paths.rootless_uid() == 1000
    assert xdg_paths.run() == "/run/user/1000/jaula"


@pytest.mark.parametrize("text", ["", "-1", "me", "１"])
def test_an_invalid_uid_is_ignored(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(xdg_paths.ROOTLESS_ENV, text)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert xdg_paths.rootless_uid() is None


def test_only_a_directory_that_the_user_alone_can_write_is_trusted(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir(0o700)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(own)
    assert xdg_paths.is_trusted(str(own))
    assert xdg_paths.is_trusted(str(tmp_path / "not yet there"))
    assert not xdg_paths.is_trusted(str(shared))
    assert not xdg_paths.is_trusted(str(link))
    (tmp_path / "file").touch()
    assert not xdg_paths.is_trusted(str(tmp_path / "file"))
