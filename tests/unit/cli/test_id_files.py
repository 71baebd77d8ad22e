"""``--cidfile`` and ``--pod-id-file``: a command removes the file that it has read or made."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.cli import command_parser, command_table, container, id_file
from jaula.cli.cli_errors import CliError
from jaula.cli.containers import create_container
from jaula.features.kubernetes.cli import pod as pod_commands
from jaula.features.kubernetes.cli.pods import api_pods, pod_select

ID, OTHER = "a" * 64, "b" * 64


class FakeClient:
    """An engine with one container, and another command that acts ``meanwhile``."""

    meanwhile: Callable[[], object]
    requests: list[tuple[str, str]]

    def __init__(self, _host: str = "") -> None: ...

    def request(self, method: str, path: str, _query: object = ()) -> None:
        FakeClient.requests.append((method, path))
        FakeClient.meanwhile()

    def document(self, method: str, path: str, _query: object, _body: object) -> dict[str, str]:
        self.request(method, path)
        return {"Id": ID}


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeClient.requests, FakeClient.meanwhile = [], lambda: None
    pod = SimpleNamespace(id=ID)
    for module in (container, pod_select, pod_commands):
        monkeypatch.setattr(module, "Client", FakeClient)
    monkeypatch.setattr(api_pods, "find", lambda _client, _ref: pod)
    monkeypatch.setattr(
        api_pods, "remove", lambda client, pod, **_: client.request("pod rm", pod.id)
    )
    monkeypatch.setattr(api_pods, "create_infra", lambda *_: ID)


def options(*words: str) -> command_parser.Options:
    name = " ".join(words[:2]) if words[0] == "pod" else words[0]
    return command_parser.parse(command_table.load(name), words[len(name.split()) :])


def replace(file: Path) -> None:
    file.unlink()
    # Another file has the inode first, which the file system may use again.
    file.with_suffix(".first").write_text("")
    file.write_text(OTHER)


@pytest.mark.parametrize(
    ("meanwhile", "left"),
    [
        (lambda file: None, None),
        (lambda file: file.unlink(), None),
        (replace, OTHER),
        (lambda file: file.write_text(OTHER), OTHER),
    ],
    ids=["nothing", "removed", "replaced", "rewritten"],
)
@pytest.mark.parametrize(
    "words", [("rm", "--cidfile"), ("pod", "rm", "--pod-id-file")], ids=["rm", "pod rm"]
)
def test_the_file_of_another_command_is_left(
    words: tuple[str, ...], meanwhile: Callable[[Path], object], left: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "id"
    file.write_text(f"{ID}\n")
    FakeClient.meanwhile = lambda: meanwhile(file)
    remove = container.rm if words[0] == "rm" else pod_commands.rm
    assert remove(options(*words, str(file))) == 0
    assert FakeClient.requests[0][1].endswith(ID)
    assert (file.read_text() if file.exists() else None) == left


@pytest.mark.parametrize(
    "words", [("rm", "-i", "--cidfile"), ("pod", "rm", "-i", "--pod-id-file")], ids=["rm", "pod rm"]
)
def test_a_file_that_appears_after_an_ignored_one_is_left(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "id"
    FakeClient.meanwhile = lambda: file.write_text(OTHER)
    remove = container.rm if words[0] == "rm" else pod_commands.rm
    assert remove(options(*words, str(file), "name")) == 0
    assert file.read_text() == OTHER


def test_a_replaced_containers_file_is_that_from_before(tmp_path: Path) -> None:
    file = tmp_path / "id"
    file.write_text(OTHER)
    FakeClient.meanwhile = lambda: replace(file) if len(FakeClient.requests) == 1 else None
    words = options("create", "--replace", "--name", "n", "--cidfile", str(file), "image")
    with pytest.raises(CliError, match="container ID file found"):
        create_container.create(FakeClient(), words, {"Image": "image"})  # type: ignore[arg-type]
    assert file.read_text() == OTHER
    assert FakeClient.requests == [("DELETE", "/containers/n")]


def test_a_container_without_its_file_is_removed_by_its_id(tmp_path: Path) -> None:
    file = tmp_path / "id"

    def meanwhile() -> None:
        if FakeClient.requests[-1][0] == "POST":
            file.write_text(OTHER)

    FakeClient.meanwhile = meanwhile
    with pytest.raises(CliError, match="container ID file found"):
        create_container.create(
            FakeClient(),  # type: ignore[arg-type]
            options("create", "--cidfile", str(file), "image"),
            {"Image": "image"},
        )
    assert file.read_text() == OTHER
    assert FakeClient.requests[1:] == [("DELETE", f"/containers/{ID}")]


def test_a_pod_without_its_file_is_removed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pod_commands.create(
            options("pod", "create", "--pod-id-file", str(tmp_path / "none/id"), "p")
        )
    assert FakeClient.requests == [("pod rm", ID)]


class FullFile:
    """A file on a full file system; another command replaces it before the write."""

    def __init__(self, file: Any, meanwhile: Callable[[], object]) -> None:
        self._file, self._meanwhile = file, meanwhile

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fileno(self) -> int:
        return int(self._file.fileno())

    def write(self, _data: bytes) -> int:
        self._meanwhile()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("meanwhile", "left"), [(lambda file: None, None), (replace, OTHER)], ids=["own", "other's"]
)
def test_a_file_that_cannot_be_written_is_removed_unless_it_is_anothers(
    meanwhile: Callable[[Path], object],
    left: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "id"

    def open_full(*args: Any, **kwargs: Any) -> FullFile:
        return FullFile(open(*args, **kwargs), lambda: meanwhile(file))

    monkeypatch.setattr(id_file, "open", open_full, raising=False)
    with pytest.raises(OSError, match="No space"):
        id_file.write(str(file), ID)
    assert (file.read_text() if file.exists() else None) == left
