"""The build context of ``jaula build``."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from jaula.cli.cli_errors import CliError
from jaula.features.build.cli import client_context
from jaula.features.build.cli.client_context import Directory, Remote


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


def sent(found: client_context.Context) -> dict[str, bytes]:
    """Return the files of the tar that would be sent."""
    data = bytearray()
    found.send(data.extend)
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
        return {
            member.name: tar.extractfile(member).read() if member.isreg() else b""  # type: ignore[union-attr]
            for member in tar
        }


@pytest.mark.parametrize(
    "word", ["https://h/x.git", "http://h/Dockerfile", "git@h:x", "git://h/x", "github.com/a/b"]
)
def test_the_engine_fetches_a_url(word: str) -> None:
    found = client_context.resolve(word, "sub/D")
    assert isinstance(found, Remote)
    assert (found.remote, found.dockerfile) == (word, "sub/D")
    assert sent_nothing(found)


def sent_nothing(found: client_context.Context) -> bool:
    pieces: list[object] = []
    found.send(pieces.append)
    return not pieces


def test_a_directory_takes_precedence_over_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "github.com", {"Dockerfile": ""})
    monkeypatch.chdir(tmp_path)
    assert isinstance(client_context.resolve("github.com", ""), Directory)


def test_the_default_dockerfile_is_found(tmp_path: Path) -> None:
    make(tmp_path, {"dockerfile": "low"})
    assert client_context.resolve(str(tmp_path), "").dockerfile == "dockerfile"
    make(tmp_path, {"Dockerfile": "high"})
    assert client_context.resolve(str(tmp_path), "").dockerfile == "Dockerfile"


def test_the_dockerfile_and_the_ignore_file_are_always_sent(tmp_path: Path) -> None:
    make(tmp_path, {"Dockerfile": "F", ".dockerignore": "*\n!keep", "keep": "", "no/x": ""})
    assert set(sent(client_context.resolve(str(tmp_path), ""))) == {
        "Dockerfile",
        ".dockerignore",
        "keep",
    }


def test_an_excluded_directory_is_sent_only_with_an_included_file(tmp_path: Path) -> None:
    make(tmp_path, {"Dockerfile": "", ".dockerignore": "a\n!a/b/keep\nb", "a/b/keep": "1"})
    make(tmp_path, {"a/b/no": "", "a/c/no": "", "b/no": ""})
    found = sent(client_context.resolve(str(tmp_path), ""))
    assert set(found) == {".dockerignore", "Dockerfile", "a", "a/b", "a/b/keep"}


def test_a_dockerfile_outside_is_sent_with_its_own_ignore_file(tmp_path: Path) -> None:
    top = make(tmp_path / "c", {"a": "", "Dockerfile": "inner", ".dockerignore": "a"})
    make(tmp_path, {"Outer": "FROM x"})
    found = client_context.resolve(str(top), str(tmp_path / "Outer"))
    files = sent(found)
    assert files[found.dockerfile] == b"FROM x"
    assert set(files) == {
        *("Dockerfile", ".dockerignore", found.dockerfile),
        f"{found.dockerfile}.dockerignore",
    }
    ignored = files[f"{found.dockerfile}.dockerignore"].decode().split()
    assert ignored == [found.dockerfile, f"{found.dockerfile}.dockerignore"]
    assert found.with_original_name(f"{found.dockerfile}:7: x") == f"{tmp_path}/Outer:7: x"


def test_a_dockerfile_linked_from_outside_is_sent(tmp_path: Path) -> None:
    top = make(tmp_path / "c", {"a": ""})
    make(tmp_path, {"Outer": "FROM x"})
    (top / "Dockerfile").symlink_to("../Outer")
    found = client_context.resolve(str(top), "")
    assert sent(found)[found.dockerfile] == b"FROM x"


def test_nothing_is_read_outside_of_the_context(tmp_path: Path) -> None:
    top = make(tmp_path / "c", {"Dockerfile": ""})
    make(tmp_path, {"secret": "s"})
    (top / "link").symlink_to("../secret")
    assert b"s" not in sent(client_context.resolve(str(top), "")).values()


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    bytes_of = []
    for number in ("1", "2"):
        top = make(tmp_path / number, {"b": "x", "a/c": "y", "Dockerfile": "z"})
        for place in (*top.rglob("*"), top):
            os.utime(place, (5, 5))
        data = bytearray()
        client_context.resolve(str(top), "").send(data.extend)
        bytes_of.append(bytes(data))
    assert bytes_of[0] == bytes_of[1]


@pytest.mark.parametrize(
    ("files", "file", "error"),
    [
        ({}, "", "unable to read the Dockerfile"),
        ({"Dockerfile/x": ""}, "", "is a directory"),
        ({"Dockerfile": "", ".dockerignore/x": ""}, "", "is a directory"),
        ({"Dockerfile": "", ".dockerignore": "a[\n"}, "", "dockerignore"),
        ({"Dockerfile": ""}, "nope", "nope: not found"),
    ],
)
def test_the_error_names_an_unreadable_file(
    tmp_path: Path, files: dict[str, str], file: str, error: str
) -> None:
    make(tmp_path, files)
    with pytest.raises(CliError, match=error):
        client_context.resolve(str(tmp_path), file)


def test_the_error_names_an_unreadable_directory(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    make(tmp_path, {"Dockerfile": "", "no/x": ""})
    (tmp_path / "no").chmod(0)
    with pytest.raises(CliError, match="no: permission denied"):
        sent(client_context.resolve(str(tmp_path), ""))
