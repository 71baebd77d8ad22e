"""``mode=non-blocking``: a slow disk delays the log, not the container."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.logs import non_blocking, open_writer, validate
from jaula.logs.log_opt import BUFFER, split_delivery_mode
from jaula.logs.non_blocking import NonBlockingWriter
from jaula.logs.reader.read import read
from unit.logs.workers import end_when_killed

# A shim has one thread; the programs that run tests have more.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

ASIDE = {"mode": "non-blocking"}


def kept(path: Path) -> bytes:
    return b"".join(record.data for record in read(str(path)))


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_output_arrives_and_the_process_goes(tmp_path: Path, driver: str) -> None:
    path = tmp_path / "log"
    before = children()
    writer = open_writer(driver, ASIDE | {"max-size": "100k"}, str(path))
    assert isinstance(writer, NonBlockingWriter)
    assert len(children()) == len(before) + 1
    writer.write("stdout", b"one\n")
    writer.write("stderr", b"two\n")
    writer.write("stdout", b"no end")
    writer.flush()
    assert kept(path) == b"one\ntwo\nno end"
    assert [r.stream for r in read(str(path))] == ["stdout", "stderr", "stdout"]
    for number in range(20000):
        while not _fits(writer, b"%d\n" % number):
            time.sleep(0.001)
    writer.close()
    writer.close()
    assert kept(path).endswith(b"19998\n19999\n")
    assert any(name.startswith("log.1") for name in os.listdir(tmp_path)), "nothing is rotated"
    assert children() == before


def _fits(writer: NonBlockingWriter, data: bytes) -> bool:
    lost = writer.dropped
    writer.write("stdout", data)
    return writer.dropped == lost


def test_a_disk_that_hangs_delays_the_end_of_the_container_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifo that no process reads takes 64 KiB, then a write to it blocks."""
    assert non_blocking._TIMEOUT == 2.0
    monkeypatch.setattr(non_blocking, "_TIMEOUT", 0.05)
    end_when_killed(monkeypatch)
    path = tmp_path / "log"
    os.mkfifo(path)
    before = children()
    writer = open_writer("json-file", ASIDE | {"max-buffer-size": "1m"}, str(path))
    begin = time.monotonic()
    for _ in range(200):
        writer.write("stdout", b"x" * 65535 + b"\n")
    assert time.monotonic() - begin < 2
    assert 13_107_200 - 65536 * 40 < writer.dropped < 13_107_200
    assert "cannot hand output" in writer.error
    writer.close()
    assert time.monotonic() - begin < 10
    assert children() == before, "its process is left"


def test_a_killed_helper_is_reported_and_loses_only_log_entries(tmp_path: Path) -> None:
    writer = open_writer("json-file", ASIDE, str(tmp_path / "log"))
    assert isinstance(writer, NonBlockingWriter)
    os.kill(writer._helper.pid, 9)
    os.waitid(os.P_PID, writer._helper.pid, os.WEXITED | os.WNOWAIT)
    writer.write("stdout", b"lost\n")
    writer.flush()
    assert writer.dropped == 5
    assert "Broken pipe" in writer.error
    writer.close()


def test_a_helper_reaped_by_another_part_is_released(tmp_path: Path) -> None:
    """The shim may reap it with the orphans of another runtime."""
    before = children()
    writer = open_writer("json-file", ASIDE, str(tmp_path / "log"))
    assert isinstance(writer, NonBlockingWriter)
    os.kill(writer._helper.pid, 9)
    os.waitpid(writer._helper.pid, 0)
    writer.close()
    assert children() == before


def test_a_log_that_cannot_be_opened_is_reported_at_once(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(OSError):
        open_writer("json-file", ASIDE, str(tmp_path / "absent" / "log"))
    assert children() == before


@pytest.mark.parametrize(
    ("options", "buffer"),
    [
        ({}, 0),
        ({"mode": "blocking"}, 0),
        ({"mode": "non-blocking"}, BUFFER),
        ({"mode": "non-blocking", "max-buffer-size": "4m"}, 4_000_000),
        ({"mode": "non-blocking", "max-buffer-size": "0"}, BUFFER),
    ],
)
def test_the_mode_limits_the_buffer(options: dict[str, str], buffer: int) -> None:
    assert split_delivery_mode(options | {"max-file": "2"}) == (buffer, {"max-file": "2"})
    validate("json-file", options)
    validate("local", options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "sometimes"}, "logging mode not supported: sometimes"),
        ({"mode": ""}, "logging mode not supported"),
        ({"max-buffer-size": "4m"}, "only supported with 'mode=non-blocking'"),
        ({"mode": "blocking", "max-buffer-size": "4m"}, "only supported with"),
        ({"mode": "non-blocking", "max-buffer-size": "much"}, "bad max-buffer-size"),
    ],
)
def test_a_mode_that_cannot_be_is_refused(options: dict[str, str], words: str) -> None:
    for driver in ("json-file", "local"):
        with pytest.raises(InvalidRequest, match=words):
            validate(driver, options)
