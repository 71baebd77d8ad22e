"""Bundles that an untrusted author wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest, JaulaError, NotFound, Unsupported
from jaula.oci import bundle_documents

GOOD = b'{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"cwd":"/","args":["true"]}}'


def message(directory: Path) -> str:
    with pytest.raises(JaulaError) as caught:
        bundle_documents.load(str(directory))
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(directory), "BUNDLE")


def test_a_config_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(GOOD)
    spec = bundle_documents.load(str(tmp_path))
    assert spec.process is not None
    assert spec.process.args == ("true",)


def test_a_link_to_a_config_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(GOOD)
    (tmp_path / "config.json").symlink_to("elsewhere")
    assert bundle_documents.load(str(tmp_path)).oci_version == "1.2.0"


def test_a_missing_file_raises_not_found(tmp_path: Path) -> None:
    assert message(tmp_path) == "BUNDLE/config.json: no such file or directory"
    with pytest.raises(NotFound, match="bundle /nonexistent: no such file or directory"):
        bundle_documents.load("/nonexistent")


def test_a_bundle_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert message(path) == "bundle BUNDLE: not a directory"
    with pytest.raises(InvalidRequest, match="null"):
        bundle_documents.load("a\0b")


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert message(tmp_path) == "BUNDLE/config.json is a pipe, not a regular file"


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.mkdir()
    assert message(tmp_path) == "BUNDLE/config.json is a directory, not a regular file"
    config.rmdir()
    config.symlink_to("/dev/zero")
    assert message(tmp_path) == "BUNDLE/config.json is a device, not a regular file"
    config.unlink()
    config.symlink_to("config.json")
    assert message(tmp_path) == "BUNDLE/config.json: too many levels of symbolic links"


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    assert message(tmp_path) == "BUNDLE/config.json is larger than 16 MiB"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "input data was truncated"),
        (b'{"ociVersion":', "input data was truncated"),
        (b"[]", "expected `object`, got `array`"),
        (b"{}", "ociVersion is missing"),
        (b'{"ociVersion":""}', "ociVersion is missing"),
        (b'{"ociVersion":1}', "$.ociVersion: expected `str`, got `int`"),
        (
            b'{"ociVersion":"1.2.0","process":{"cwd":"/","args":["a",1]}}',
            "$.process.args[1]: expected `str`, got `int`",
        ),
        (
            b'{"ociVersion":"1.2.0","process":{}}',
            "$.process: object missing required field `cwd`",
        ),
        (
            b'{"ociVersion":"1.2.0","windows":{}}',
            "section 'windows' is for a platform other than Linux",
        ),
        (b'{"ociVersion":"1.2.0","vm":{}}', "section 'vm' is for a platform other than Linux"),
        (b'{"ociVersion":"1.2.0"}{}', "JSON is malformed: trailing characters (byte 23)"),
        (
            b'{"ociVersion":"1.2.0","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
            "objects or lists are nested too deeply",
        ),
    ],
)
def test_an_error_of_a_document_is_one_line(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "config.json").write_bytes(data)
    assert message(tmp_path).lower() == f"bundle/config.json: {text}".lower()


@pytest.mark.parametrize(
    "data",
    [
        b'{"ociVersion":"1.2.0","hostname":"\xff\xfe"}',
        b'{"ociVersion":"1.2.0","hostname":"\\ud800"}',
        b'{"ociVersion":"1.2.0","hostname":"a\0b"}',
        b"\0\0\0\0",
        b"\xef\xbb\xbf{}",
    ],
)
def test_invalid_utf8_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.json").write_bytes(data)
    assert message(tmp_path).startswith("BUNDLE/config.json: ")


def test_a_process_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "process"
    path.write_bytes(b'{"cwd":"/","args":["id"],"user":{"uid":5,"gid":6}}')
    assert bundle_documents.load_process(str(path)).user.uid == 5
    path.write_bytes(b'{"cwd":1}')
    with pytest.raises(InvalidRequest, match=r"process: \$.cwd: expected `str`, got `int`"):
        bundle_documents.load_process(str(path))


def test_resources_come_from_a_file_or_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "resources"
    path.write_bytes(b'{"memory":{"limit":67108864}}')
    assert bundle_documents.load_resources(str(path)).memory is not None
    with path.open("rb") as file:
        read = bundle_documents.load_resources("-", file.fileno())
    assert read.memory is not None
    assert read.memory.limit == 64 << 20


def test_resources_without_an_end_are_refused() -> None:
    with open("/dev/zero", "rb") as zeros, pytest.raises(InvalidRequest, match="larger than 16"):
        bundle_documents.load_resources("-", zeros.fileno())


def test_malformed_standard_input_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"memory")
    with (
        (tmp_path / "x").open("rb") as file,
        pytest.raises(InvalidRequest, match=r"^standard input: JSON is malformed"),
    ):
        bundle_documents.load_resources("-", file.fileno())


def test_a_section_of_another_platform_is_unsupported() -> None:
    with pytest.raises(Unsupported):
        bundle_documents.parse(b'{"ociVersion":"1.2.0","solaris":{}}')


@given(
    st.binary(max_size=64)
    | st.text(alphabet='{}[]":,0123456789-.eE\\u"nulltrefas', max_size=64).map(str.encode)
    | st.binary(max_size=8).map(lambda noise: GOOD[:40] + noise + GOOD[40:])
)
def test_any_bytes_give_at_most_a_clear_error(data: bytes) -> None:
    for parse in (bundle_documents.parse, bundle_documents.parse_resources):
        text = ""
        try:
            parse(data, "x")
        except JaulaError as error:
            text = str(error)
        assert "\n" not in text
        assert not text or text.startswith("x: ")
