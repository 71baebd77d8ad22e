"""The program: arguments, environment, working directory."""

from __future__ import annotations

import pytest

from jaula.engine.containers.image_config import merge_image_config
from jaula.engine.oci_spec.start_spec import (
    DEFAULT_PATH,
    arguments,
    environment,
    merge_environment,
    runs_init,
    working_directory,
)
from jaula.errors import InvalidRequest
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.image_documents import ImageConfig
from jaula.state.container_records import NamespaceKind, NamespaceMode, Namespaces, UserFacts

IMAGE = ImageConfig(
    env=("PATH=/bin", "X=1"), cmd=("sh",), entrypoint=("/init",), user="app", labels={"a": "image"}
)


def test_the_image_completes_the_request() -> None:
    merged = merge_image_config(
        ContainerCreate(image="i", env=("X=2", "Y=3"), labels={"b": "mine"}), IMAGE
    )
    assert arguments(merged) == ("/init", "sh")
    assert merged.env == ("X=2", "Y=3", "PATH=/bin")
    assert merged.user == "app"
    assert merged.labels == {"a": "image", "b": "mine"}


def test_a_command_replaces_the_images_and_keeps_its_entry_point() -> None:
    assert arguments(merge_image_config(ContainerCreate(cmd=("id",)), IMAGE)) == ("/init", "id")


def test_an_entry_point_drops_the_images_command() -> None:
    assert arguments(merge_image_config(ContainerCreate(entrypoint=("id",)), IMAGE)) == ("id",)


def test_an_empty_entry_point_resets_the_images() -> None:
    merged = merge_image_config(ContainerCreate(entrypoint=("",), cmd=("id",)), IMAGE)
    assert arguments(merged) == ("id",)


@pytest.mark.parametrize("cmd", [None, (), ("a\0b",)])
def test_no_program_is_refused(cmd: tuple[str, ...] | None) -> None:
    with pytest.raises(InvalidRequest):
        arguments(ContainerCreate(cmd=cmd))


def test_a_name_without_a_value_removes_the_variable() -> None:
    assert merge_environment(("A=1", "B=2"), ("A",)) == ("B=2",)


@pytest.mark.parametrize("entry", ["=x", "", "A=\0"])
def test_a_variable_without_a_name_is_refused(entry: str) -> None:
    with pytest.raises(InvalidRequest):
        merge_environment((), (entry,))


def test_the_environment_has_the_variables_that_images_expect() -> None:
    user = UserFacts(home="/home/u")
    found = environment(("B=1",), hostname="h", tty=True, user=user)
    assert found == (
        f"PATH={DEFAULT_PATH}",
        "HOSTNAME=h",
        "TERM=xterm",
        "B=1",
        "HOME=/home/u",
    )
    kept = environment(("HOME=/x", "PATH=/p"), hostname="h", tty=False, user=user)
    assert kept == ("PATH=/p", "HOSTNAME=h", "HOME=/x")


@pytest.mark.parametrize(
    ("text", "path"), [("", "/"), ("/a/../b/", "/b"), ("//x", "/x"), ("/process", "/process")]
)
def test_a_working_directory_is_normalised(text: str, path: str) -> None:
    assert working_directory(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "./a",
        "/a\0",
        "/proc/self/fd/7",
        "/x/../proc/self/fd/8/..",
        "/proc/self/environ",
        "/proc",
    ],
)
def test_a_working_directory_that_leads_out_is_refused(text: str) -> None:
    if text.endswith(".."):
        text = text.removesuffix("/..")
    with pytest.raises(InvalidRequest):
        working_directory(text)


@pytest.mark.parametrize(
    ("init", "kind", "runs"),
    [
        (True, NamespaceKind.PRIVATE, True),
        (True, NamespaceKind.HOST, False),
        (True, NamespaceKind.CONTAINER, False),
        (False, NamespaceKind.PRIVATE, False),
        (None, NamespaceKind.PRIVATE, False),
    ],
)
def test_an_init_program_needs_a_pid_namespace_of_its_own(
    init: bool | None, kind: NamespaceKind, runs: bool
) -> None:
    namespaces = Namespaces(pid=NamespaceMode(kind))
    assert runs_init(HostConfig(init=init), namespaces) is runs
