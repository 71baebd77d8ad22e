"""Checks of a pod's request, and its log directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jaula.errors import InvalidRequest
from jaula.features.kubernetes.pods import validation
from jaula.spec.api_documents import ContainerCreate
from jaula.spec.pod import PodContainerRequest, PodMetadata, PodSandboxRequest


def sandbox(**fields: Any) -> PodSandboxRequest:
    body = ContainerCreate(hostname=fields.pop("hostname", ""))
    metadata = PodMetadata("web", "u-1", "default")
    request = PodSandboxRequest(metadata=metadata, body=body)
    return msgspec.structs.replace(request, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"hostname": "web-1.example"},
        {"hostname": "x" * 64},
        {"labels": {"a": "x" * 500_000}},
        {"log_directory": "/var/log/pods/default_web_u-1"},
        {"log_directory": "/var/log/pods/..data"},
    ],
)
def test_requests_of_a_kubelet_are_valid(fields: dict[str, Any]) -> None:
    validation.check_sandbox(sandbox(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metadata": PodMetadata("a;b=c", "u", "d")}, "the name 'a;b=c'"),
        ({"metadata": PodMetadata("a", "u\n", "d")}, "the uid"),
        ({"metadata": PodMetadata("a", "u", "")}, "the namespace ''"),
        ({"metadata": PodMetadata("a" * 254, "u", "d")}, "the name 'aaa"),
        ({"hostname": "x" * 65}, "invalid hostname"),
        ({"hostname": "x y"}, "invalid hostname"),
        ({"hostname": "x\n"}, "invalid hostname"),
        ({"labels": {"a": "x" * 600_000}}, "labels and annotations have 600"),
        ({"annotations": {"a": "x" * 300_000}, "labels": {"b": "x" * 300_000}}, "limit is 524288"),
        ({"runtime_handler": "x" * (3 << 20)}, "the request has"),
        ({"log_directory": "var/log"}, "not a normal absolute path"),
        ({"log_directory": "/var/../log"}, "not a normal absolute path"),
        ({"log_directory": "/var\0"}, "not a normal absolute path"),
        ({"log_directory": "/./"}, "not a normal absolute path"),
        ({"log_directory": "/" + "é" * 2048}, "not a normal absolute path"),
    ],
)
def test_other_requests_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        validation.check_sandbox(sandbox(**fields))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["a/b", "a\0", "a" * 254])
def test_names_of_containers_are_checked(name: str) -> None:
    request = PodContainerRequest(sandbox="s", name=name, body=ContainerCreate())
    with pytest.raises(InvalidRequest, match="the name"):
        validation.check_container(request)


def test_a_text_that_is_not_unicode_is_refused() -> None:
    body = ContainerCreate(env=("a=\udcff",))
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        validation.check_container(PodContainerRequest(sandbox="s", name="n", body=body))


@pytest.mark.parametrize(
    "command", [[], [""], ["x" * 131072], ["x" * 100_000] * 3, ["a\0b"], ["true", "é" * 65536]]
)
def test_commands_that_the_kernel_would_not_execute_are_refused(command: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="command"):
        validation.check_command(command)


def test_a_log_directory_is_made_once_and_removed_if_it_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert validation.make_log_directory(str(path))
    assert not validation.make_log_directory(f"{path}/")
    (path / "0.log").touch()
    validation.remove_log_directory(str(path))
    assert path.is_dir()
    (path / "0.log").unlink()
    validation.remove_log_directory(str(path))
    assert not path.exists()
    path.symlink_to(tmp_path)
    for other in (path, tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(InvalidRequest, match="cannot be created"):
            validation.make_log_directory(str(other))
    assert os.listdir(tmp_path / "a") == ["b"]
