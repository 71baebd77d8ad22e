"""The engine's own log: members of JSON, fields of the journal, what a message is about."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaula import request_context
from jaula.config import EngineConfig
from jaula.daemon import engine_log
from jaula.daemon.engine_log import ContainerIds, JournalHandler, JsonFormatter
from jaula.errors import NotFound
from jaula.request_context import RequestContext

ID = "ab" * 32


@pytest.fixture
def ids() -> ContainerIds:
    found = ContainerIds()
    found.names = {"web": ID}
    return found


@pytest.fixture
def request_of_7() -> Iterator[None]:
    token = request_context.current.set(RequestContext("1f", "7", "POST /containers/web/start"))
    yield
    request_context.current.reset(token)


def record(template: str, *arguments: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("jaula.engine", level, "/x/stop.py", 12, template, arguments, None)


def document(ids: ContainerIds, made: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter(ids.find).format(made)
    assert "\n" not in line
    return dict(json.loads(line))


def test_a_line_of_json_has_the_members_of_dockerd(ids: ContainerIds) -> None:
    made = record("engine %s listens", "x", level=logging.INFO)
    made.created = 1700000000.25
    line = JsonFormatter(ids.find).format(made)
    assert line == (
        '{"level":"info","module":"jaula.engine","msg":"engine x listens",'
        '"time":"2023-11-14T22:13:20.250000Z"}'
    )


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (logging.DEBUG, "debug"),
        (logging.INFO, "info"),
        (logging.WARNING, "warning"),
        (logging.ERROR, "error"),
        (logging.CRITICAL, "fatal"),
    ],
)
def test_levels_have_the_names_of_logrus(ids: ContainerIds, level: int, name: str) -> None:
    assert document(ids, record("x", level=level))["level"] == name


@pytest.mark.parametrize(
    ("template", "arguments", "name"),
    [
        ("container %s: %s", ("web", "x"), "web"),
        ("the start of container %s was undone", ("web",), "web"),
        ("%s of container %s", ("5 %% x", "web"), "web"),
        ("100%% of container %s", ("web",), "web"),
        ("swept %s", ("web",), None),
        ("thecontainer %s", ("web",), None),
        ("%d containers run", (3,), None),
        ("container %s", (5,), None),
    ],
)
def test_the_container_is_the_argument_after_its_word(
    ids: ContainerIds, template: str, arguments: tuple[object, ...], name: str | None
) -> None:
    found = document(ids, record(template, *arguments))
    assert found.get("container") == name
    assert found.get("container_id") == (ID if name else None)


def test_a_container_that_is_gone_has_no_id(ids: ContainerIds) -> None:
    found = document(ids, record("container %s: x", "gone"))
    assert found["container"] == "gone"
    assert "container_id" not in found


def test_an_exception_among_the_arguments_is_the_error(ids: ContainerIds) -> None:
    found = document(ids, record("container %s: %s", "web", NotFound("no such file")))
    assert found["error"] == "no such file"


def test_an_unexpected_error_has_its_stack(ids: ContainerIds) -> None:
    made = record("failed")
    try:
        raise ValueError("bad\nline")
    except ValueError:
        made.exc_info = sys.exc_info()
    found = document(ids, made)
    assert found["error"] == "bad\nline"
    assert found["stack"].startswith("Traceback")


@pytest.mark.usefixtures("request_of_7")
def test_a_line_names_the_request_that_caused_it(ids: ContainerIds) -> None:
    found = document(ids, record("x"))
    assert (found["request_id"], found["user"]) == ("1f", "7")
    assert found["request"] == "POST /containers/web/start"


def test_hostile_text_stays_one_line_of_json(ids: ContainerIds) -> None:
    name = 'x"\n{"level":"fatal"}\x00\udcff'.encode("utf-8", "replace").decode()
    assert document(ids, record("container %s: x", name))["container"] == name


def fields(data: bytes) -> dict[str, bytes]:
    """Parse an entry of the native protocol."""
    found: dict[str, bytes] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + size], rest[9 + size :]
        assert name.decode() not in found
        found[name.decode()] = value
        data = rest
    return found


@pytest.mark.usefixtures("request_of_7")
def test_an_entry_of_the_journal_has_fields(ids: ContainerIds) -> None:
    made = record("container %s: %s", "web", OSError("x"), level=logging.ERROR)
    found = fields(engine_log.entry(made, ids.find))
    assert found["MESSAGE"] == b"container web: x"
    assert found["PRIORITY"] == b"3"
    assert found["SYSLOG_IDENTIFIER"] == b"jaula"
    assert found["CONTAINER_NAME"] == b"web"
    assert found["CONTAINER_ID"] == ID[:12].encode()
    assert found["CONTAINER_ID_FULL"] == ID.encode()
    assert found["ERROR"] == b"x"
    assert found["JAULA_USER"] == b"7"
    assert (found["CODE_FILE"], found["CODE_LINE"]) == (b"/x/stop.py", b"12")


def test_a_value_cannot_add_a_field(ids: ContainerIds) -> None:
    made = record("container %s: x", "a\nPRIORITY=0\nEVIL=1")
    found = fields(engine_log.entry(made, ids.find))
    assert found["CONTAINER_NAME"] == b"a\nPRIORITY=0\nEVIL=1"
    assert found["PRIORITY"] == b"4"
    assert "EVIL" not in found


def test_a_long_message_is_cut_and_its_entry_is_complete(ids: ContainerIds) -> None:
    made = record("line\n" * 100_000 + "%s", OSError("x" * 200_000), level=logging.ERROR)
    data = engine_log.entry(made, ids.find)
    found = fields(data)
    assert len(data) < 128 * 1024
    assert found["MESSAGE"].startswith(b"line\nline")
    assert found["ERROR"].startswith(b"xxx")
    assert found["PRIORITY"] == b"3"
    assert data.endswith(b"x\n")


def test_an_entry_reaches_the_journal_and_otherwise_standard_error(
    ids: ContainerIds, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        address = f"{directory}/journal"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            journal.bind(address)
            handler = JournalHandler(ids.find, address)
            handler.emit(record("hello"))
            assert fields(journal.recv(65536))["MESSAGE"] == b"hello"
        Path(address).unlink()
        handler.emit(record("no journal"))
        handler.close()
    assert "no journal" in capsys.readouterr().err


def test_the_stream_of_the_journal_is_recognized() -> None:
    with tempfile.TemporaryFile() as file:
        status = os.fstat(file.fileno())
        own = f"{status.st_dev}:{status.st_ino}"
        assert engine_log.is_journal_stream(own, file.fileno())
        for other in ("", ":", "1:2", f"{own}:", f"{own}x", "٣:٤", f"{status.st_dev}"):
            assert not engine_log.is_journal_stream(other, file.fileno())


def test_debug_wins_over_the_level() -> None:
    assert engine_log.level(EngineConfig(log_level="error")) == logging.ERROR
    assert engine_log.level(EngineConfig(log_level="error", debug=True)) == logging.DEBUG
    assert engine_log.level(EngineConfig()) == logging.INFO
