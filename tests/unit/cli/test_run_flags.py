"""``docs/run-flags.md`` describes each flag of ``run`` correctly; a script writes its rows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jaula.cli import command_table
from jaula.cli.cli_errors import UsageError
from jaula.cli.command_parser import parse
from jaula.cli.containers import create_body

PAGE = Path(__file__).resolve().parents[3] / "docs" / "run-flags.md"
ROW = re.compile(r"\| `--([a-z0-9-]+)` \| (?:`(.*?)`)? *\| (effective|client|refused) \| (.+) \|")
# Refused by the command itself; a test with an engine tries the flags that the engine refuses.
REFUSED_BY_COMMAND = {"link-local-ip"}


def rows() -> dict[str, tuple[str, str]]:
    result = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `--"):
            match = ROW.fullmatch(line)
            assert match, line
            result[match[1]] = (match[2] or "", match[3])
    return result


def document(*words: str) -> dict[str, Any]:
    return create_body.document(parse(command_table.load("run"), [*words, "image"]))


@pytest.mark.skipif(shutil.which("docker") is None, reason="compares with the docker command")
def test_the_page_has_every_flag_of_docker() -> None:
    output = subprocess.run(
        ["docker", "run", "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    ).stdout
    theirs = set(re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", output, re.MULTILINE))
    assert len(theirs) > 90
    assert theirs <= set(rows())


@pytest.mark.parametrize(
    ("flag", "example"), [(k, v[0]) for k, v in rows().items() if v[1] != "client"]
)
def test_an_example_changes_the_request_or_is_refused(flag: str, example: str) -> None:
    words = (f"--{flag}", *((example,) if example else ()))
    if flag in REFUSED_BY_COMMAND:
        with pytest.raises(UsageError):
            document(*words)
        return
    assert document(*words) != document()


@pytest.mark.parametrize(
    "words",
    [
        ("--device-read-bps", "sda:1m"),
        ("--device-read-bps", "/dev/sda"),
        ("--device-write-iops", "/dev/sda:1m"),
        ("--blkio-weight-device", "/dev/sda:-1"),
        ("--disable-content-trust=false",),
        ("--health-interval", "soon"),
        ("--health-retries", "-1"),
        ("--no-healthcheck", "--health-cmd", "true"),
    ],
)
def test_an_invalid_value_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        document(*words)
