"""Commands of the engine: their errors, bounds and ends. The program is a shell script here."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from jaula.errors import Conflict, InvalidRequest, Unavailable
from jaula.features.verify.diagnostics import commands
from jaula.features.verify.diagnostics.commands import MAX_COMMANDS, Commands


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the program that runs in place of ``jaula``; it gets the words after the socket."""
    path = tmp_path / "program.py"

    def command(module: str, _flag: str, _socket: str, *words: str) -> list[str]:
        assert module == "jaula"
        return [sys.executable, str(path), *words]

    monkeypatch.setattr(commands, "command", command)
    return path


def test_the_answer_is_what_the_command_prints(script: Path, tmp_path: Path) -> None:
    script.write_text("import sys; print(sys.argv[1:])")
    made = Commands("/run/x.sock", tmp_path)
    answer = asyncio.run(made.why("web", ("ping", "--help"), "root", 20.0))
    words = ["why", "--format", "json", "--all", "--user", "root", "web", "--", "ping", "--help"]
    assert answer.decode().strip() == str(words)


def test_an_error_is_that_of_the_command(script: Path, tmp_path: Path) -> None:
    script.write_text("import sys; sys.exit('jaula: this host cannot trace')")
    with pytest.raises(Conflict, match=r"^this host cannot trace$"):
        asyncio.run(Commands("/run/x.sock", tmp_path).why("web", ("id",), "", 20.0))


def test_an_audit_with_failed_controls_is_an_answer(script: Path, tmp_path: Path) -> None:
    script.write_text("import sys; print('{}'); sys.exit(1)")
    assert asyncio.run(Commands("/s", tmp_path).audit(("host",), "cis", 20.0)) == b"{}\n"


def test_a_command_that_takes_too_long_is_ended(script: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ended"
    script.write_text(
        "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n"
        f"    open({str(mark)!r}, 'w').close()\n"
    )
    with pytest.raises(Unavailable, match="has not ended after 2 seconds"):
        asyncio.run(Commands("/s", tmp_path).audit((), "cis", 2.0))
    assert mark.exists()  # it was interrupted, not killed


def test_an_answer_without_end_is_refused(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "MAX_OUTPUT", 1000)
    monkeypatch.setattr(commands, "_STOP", 1.0)
    script.write_text("while True: print('x' * 500, flush=True)")
    with pytest.raises(Unavailable, match="more than 1000 bytes"):
        asyncio.run(Commands("/s", tmp_path).audit((), "cis", 20.0))


def test_only_some_commands_run_at_the_same_time(script: Path, tmp_path: Path) -> None:
    script.write_text("import time; time.sleep(1)")

    async def run() -> list[object]:
        made = Commands("/s", tmp_path)
        tasks = [made.audit((), "cis", 20.0) for _ in range(MAX_COMMANDS + 1)]
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    answers = asyncio.run(run())
    assert sum(isinstance(each, Unavailable) for each in answers) == 1


def test_a_record_leaves_no_file(script: Path, tmp_path: Path) -> None:
    script.write_text("import sys; open(sys.argv[sys.argv.index('-o') + 1], 'w').write('x' * 9)")

    async def run() -> bytes:
        chunks = [chunk async for chunk in Commands("/s", tmp_path).record("web", 1.0)]
        return b"".join(chunks)

    assert asyncio.run(run()) == b"x" * 9
    assert list(tmp_path.glob("*.record")) == []


def test_a_record_that_is_too_large_is_not_read(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "MAX_RECORD", 10)

    async def run() -> bytes:
        async def chunks():  # type: ignore[no-untyped-def]
            for _ in range(3):
                yield b"xxxxx"

        return await Commands("/s", tmp_path).harden(chunks(), 5.0)

    with pytest.raises(InvalidRequest, match="at most 10 bytes"):
        asyncio.run(run())
