"""Progress of long operations: one line of a terminal, few lines elsewhere, none when quiet."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from jaula.cli.output import ansi, progress_line
from jaula.cli.output.progress_line import Progress, line


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (("commit", 0, 0, 3.2, 80), "commit: 3s"),
        (("save", 12_300_000, 0, 75.0, 80), "save: 12.3MB, 1m15s"),
        (
            ("load", 50_000_000, 100_000_000, 4.0, 80),
            "load: [===============               ] 50MB/100MB 50%, 4s",
        ),
        (("load", 50_000_000, 100_000_000, 4.0, 40), "load: 50MB/100MB 50%, 4s"),
        (("load", 50_000_000, 100_000_000, 4.0, 10), "load: 50MB"),
        (("load", 50_000_000, 100_000_000, 4.0, 0), "load: 50MB/100MB 50%, 4s"),
        (("load", 200, 100, 0.0, 80), "load: 200B, 0s"),
    ],
)
def test_a_moment_is_one_line(moment: tuple[str, int, int, float, int], text: str) -> None:
    assert line(*moment) == text
    assert not moment[4] or len(text) <= moment[4]


Redirect = Callable[[int], None]


@pytest.fixture
def redirect_error() -> Iterator[Redirect]:
    """Return a function that replaces standard error by a descriptor."""
    saved = os.dup(2)
    yield lambda descriptor: os.dup2(descriptor, 2) and None
    os.dup2(saved, 2)
    os.close(saved)


def test_a_terminal_has_one_line_that_is_erased(
    redirect_error: Redirect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress_line, "FIRST", 0.01)
    monkeypatch.setattr(progress_line, "INTERVAL", 0.01)
    monkeypatch.setattr(progress_line, "redraws", lambda _: True)
    master, slave = pty.openpty()
    redirect_error(slave)
    with Progress("save") as operation:
        chunks = [*operation.counted([b"a" * 1000, b"b" * 500])]
        deadline = time.monotonic() + 10
        while not operation._drawn and time.monotonic() < deadline:
            time.sleep(0.01)
    os.set_blocking(master, False)
    seen = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            seen += os.read(master, 4096)
    os.close(master)
    os.close(slave)
    assert chunks == [b"a" * 1000, b"b" * 500]
    assert b"\r\x1b[Ksave: 1.5kB, 0s" in seen
    assert seen.endswith(b"\r\x1b[K")
    assert b"\n" not in seen


def test_elsewhere_there_is_a_line_after_some_time_and_no_escape(
    redirect_error: Redirect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_line, "PLAIN_INTERVAL", 0.02)
    reader, writer = os.pipe()
    redirect_error(writer)
    with Progress("commit"):
        time.sleep(0.05)
    os.close(writer)
    seen = os.read(reader, 4096)
    os.close(reader)
    assert seen.startswith(b"commit: 0s\n")
    assert b"\x1b" not in seen


@pytest.mark.parametrize("quiet", [True, False])
def test_a_short_or_quiet_operation_prints_nothing(quiet: bool, redirect_error: Redirect) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    redirect_error(writer)
    with Progress("commit", quiet=quiet):
        pass
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)


def test_without_a_timer_a_terminal_has_the_title(
    redirect_error: Redirect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_line, "redraws", lambda _: True)
    reader, writer = os.pipe()
    redirect_error(writer)
    handler = signal.getsignal(signal.SIGALRM)
    with Progress("verify", timer=False):
        assert signal.getsignal(signal.SIGALRM) is handler
    assert os.read(reader, 100) == b"\r\x1b[Kverify ...\r\x1b[K"
    os.close(reader)
    os.close(writer)


def test_the_timer_ends_with_the_operation_also_after_an_error() -> None:
    before = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 100.0)

    def fail() -> None:
        with Progress("commit"):
            assert signal.getitimer(signal.ITIMER_REAL)[0] < 50.0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert 50.0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100.0
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_closed_standard_error_does_not_end_the_operation(
    redirect_error: Redirect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_line, "PLAIN_INTERVAL", 0.01)
    reader, writer = os.pipe()
    redirect_error(writer)
    os.close(reader)
    os.close(writer)
    with Progress("commit"):
        time.sleep(0.03)


@pytest.mark.parametrize(
    ("variables", "colors"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
    ],
)
def test_colors_follow_the_environment(
    variables: dict[str, str], colors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ansi, "text", lambda name: variables.get(name, ""))
    assert ansi.accepts_colors() is colors
    monkeypatch.setattr(ansi.ColorOptions, "disabled", True)
    assert not ansi.accepts_colors()
