"""``jaula compose``: the program, its arguments and its environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jaula.cli import command_table, compose, main
from jaula.cli.cli_errors import CliError
from jaula.cli.client import engine_address
from jaula.cli.client.client_tls import TlsOptions
from jaula.cli.command_parser import parse


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compose plugin of the user, the only one on the host."""
    monkeypatch.setattr(compose, "PLUGINS", ())
    monkeypatch.setattr(engine_address, "config_directory", lambda: str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    path = tmp_path / "cli-plugins" / "docker-compose"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_users_plugin_comes_first(program: Path) -> None:
    assert compose.find() == str(program)
    program.chmod(0o644)
    with pytest.raises(CliError, match="apt install docker-compose") as caught:
        compose.find()
    assert caught.value.status == 127


def test_all_arguments_are_passed_on(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *words: seen.append(words))
    monkeypatch.delenv("DOCKER_BUILDKIT", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    words = ["-f", "a.yaml", "--profile", "x", "version", "--", "--format", "json"]
    main.main(["-H", "unix:///there.sock", "compose", *words])
    ((path, arguments, environment),) = seen
    assert (path, arguments) == (str(program), [str(program), *words])
    assert environment["DOCKER_HOST"] == "unix:///there.sock"
    assert "DOCKER_BUILDKIT" not in environment  # compose chooses BuildKit, which is served
    assert "DOCKER_CONTEXT" not in environment


def test_help_is_passed_on() -> None:
    command = command_table.load("compose")
    assert parse(command, ["--help"]).arguments == ["--help"]


def test_certificates_are_passed_as_a_directory() -> None:
    passed = TlsOptions("/c/ca.pem", "/c/cert.pem", "/c/key.pem")
    expected = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/c"}
    assert compose.certificates(passed) == expected
    for other in (
        TlsOptions("/c/ca.pem", "/d/cert.pem", "/c/key.pem"),
        TlsOptions("/c/own.pem", "/c/cert.pem", "/c/key.pem"),
    ):
        with pytest.raises(CliError, match=r"ca\.pem, cert\.pem, key\.pem"):
            compose.certificates(other)
