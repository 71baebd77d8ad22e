"""The lines that jaula-runtime logs, which callers parse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaula.oci.log import MAX_LINE, Log

TEXTS = {
    "long": "x" * 5000,
    "lines": "first\nsecond\r\nthird\n" * 300,
    "quotes": '"' * 2000,
    "control": "\x01" * 2000,
    "wide": "\U0001f600" * 2000,
    "bytes": "\udcff" * 2000,
}


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("name", TEXTS)
def test_an_error_is_one_line_of_at_most_a_kilobyte(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, log_format: str
) -> None:
    path = tmp_path / "log"
    Log(str(path), log_format).error(TEXTS[name])
    for data in (path.read_bytes(), capfd.readouterr().err.encode()):
        assert data.endswith(b"\n")
        assert (data.count(b"\n"), len(data) <= MAX_LINE) == (1, True)
    if log_format == "json":
        document = json.loads(path.read_bytes())
        assert document["level"] == "error"
        assert " ... " in document["msg"]


def test_a_short_error_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    Log(str(path), "json").error("hook failed:\nno luck\n")
    assert json.loads(path.read_bytes())["msg"] == "hook failed: no luck"


def test_the_start_and_the_end_of_a_long_error_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    Log(str(path), "json").error(f"begin {'x' * 3000} end")
    message = json.loads(path.read_bytes())["msg"]
    assert message.startswith("begin xxx")
    assert message.endswith("xxx end")


@pytest.mark.parametrize("debug", [True, False])
def test_steps_are_logged_with_debug_only(tmp_path: Path, debug: bool) -> None:
    path = tmp_path / "log"
    Log(str(path), debug=debug).step("create cgroup /x")
    assert ('level=debug msg="create cgroup /x"' in path.read_text()) == debug
