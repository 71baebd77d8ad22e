"""``--secret``, ``--ssh``, ``--build-context`` and ``--output`` of ``jaula build``."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from jaula.cli.cli_errors import CliError
from jaula.features.build.cli import build_secrets, output


def test_secrets_come_from_files_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xff of a file")
    monkeypatch.setenv("VAR", "of a variable")
    result = build_secrets.parse_secrets(
        [f"id=a,src={file}", f"src={file}", "id=b,env=VAR", "id=VAR", "type=env,id=c,src=VAR"]
    )
    assert {id: read() for id, read in result.items()} == {
        "a": b"\xff of a file",
        "token": b"\xff of a file",
        "b": b"of a variable",
        "VAR": b"of a variable",
        "c": b"of a variable",
    }


@pytest.mark.parametrize(
    "word", ["", "src", "id=a,src=x,env=y", "type=vault,id=a", "id=a,source", 'id="a']
)
def test_an_invalid_secret_is_refused(word: str) -> None:
    with pytest.raises(CliError, match="secret"):
        build_secrets.parse_secrets([word])


def test_a_secret_is_checked_before_the_build(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="no such file"):
        build_secrets.parse_secrets([f"id=a,src={tmp_path}/nope"])
    (tmp_path / "large").write_bytes(bytes(600_000))
    with pytest.raises(CliError, match="the limit is"):
        build_secrets.parse_secrets([f"id=a,src={tmp_path}/large"])
    with pytest.raises(CliError, match="variable NOT_SET_AT_ALL is not set"):
        build_secrets.parse_secrets(["id=a,env=NOT_SET_AT_ALL"])


def test_agents_are_sockets_by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        with build_secrets.SshAgents(["default", f"other={path}"]) as result:
            assert result == {"default": str(path), "other": str(path)}
        (tmp_path / "key").touch()
        with pytest.raises(CliError, match="one socket, or files"):
            build_secrets.SshAgents([f"x={path},{tmp_path}/key"])
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(CliError, match="no ssh agent"):
        build_secrets.SshAgents(["default"])


def test_named_contexts(tmp_path: Path) -> None:
    result = build_secrets.parse_contexts(
        ["A=docker-image://busybox", f"b={tmp_path}", "c=https://h/x.git"]
    )
    assert result == (
        {"a": "docker-image://busybox", "c": "https://h/x.git"},
        {"b": str(tmp_path)},
    )
    for word in ("a", "=b", "a="):
        with pytest.raises(CliError, match="NAME=VALUE"):
            build_secrets.parse_contexts([word])


@pytest.mark.parametrize(
    ("word", "kind", "destination", "keeps"),
    [
        ("out", "local", "out", False),
        ("-", "tar", "-", False),
        ("type=local,dest=out", "local", "out", False),
        ("type=tar", "tar", "-", False),
        ("type=oci,dest=x.tar", "oci", "x.tar", False),
        ("type=docker", "docker", "", True),
        ("type=docker,dest=x", "docker", "x", False),
        ("type=image,name=a:1", "image", "", True),
        ('type=local,"dest=a,b"', "local", "a,b", False),
    ],
)
def test_an_output_is_parsed(word: str, kind: str, destination: str, keeps: bool) -> None:
    result = output.parse(word)
    assert (result.kind, result.destination, result.keeps_image) == (kind, destination, keeps)


@pytest.mark.parametrize(
    "word",
    [
        *("type=nope", "type=local", "type=image,push=true", "type=tar,to=x", "dest=x"),
        *("type=image,compression=zstd", "type=oci,dest=x,compression=estargz"),
    ],
)
def test_an_invalid_output_is_refused(word: str) -> None:
    with pytest.raises(CliError):
        output.parse(word)
