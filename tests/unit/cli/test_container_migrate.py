"""``jaula container migrate`` prints the documents of the engine."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.cli.cli_errors import CliError
from jaula.features.migration.cli.container_migrate import _Printer

ROW = {"Check": "CRIU", "Passed": True, "Detail": "4.2 to 4.2", "Hint": ""}
FAILED = {"Check": "name", "Passed": False, "Detail": "web is in use", "Hint": "rename one"}
DONE = {
    "Stage": "done",
    "Container": "0123",
    "Target": "tcp://b:2376",
    "PauseMilliseconds": 412,
    "TotalMilliseconds": 1900,
    "Sent": 3 << 20,
    "KeepsAddress": True,
}


def print_all(*documents: dict[str, Any], quiet: bool = False, table: bool = False) -> int:
    printer = _Printer(quiet=quiet, table=table)
    for document in documents:
        printer.add(document)
    return printer.status


def test_stages_go_to_stderr_and_the_id_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    steps = ({"Stage": "image", "Sent": 1 << 20}, {"Stage": "image", "Sent": 2 << 20})
    assert print_all({"Stage": "check", "Rows": [ROW]}, *steps, {"Stage": "dump"}, DONE) == 0
    output = capsys.readouterr()
    assert output.out == "0123\n"
    assert output.err.splitlines() == [
        "Sending image: 1MiB",
        "Stopped, sending memory",
        "Runs at tcp://b:2376 with its address; stood still for 412 ms, 3MiB sent in 1.9 s",
    ]


def test_quiet_prints_the_id_only(capsys: pytest.CaptureFixture[str]) -> None:
    print_all({"Stage": "dump"}, DONE, quiet=True)
    assert capsys.readouterr() == ("0123\n", "")


def test_a_dry_run_prints_a_table_and_fails_with_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_all({"Stage": "check", "Rows": [ROW]}, table=True) == 0
    assert print_all({"Stage": "check", "Rows": [ROW, FAILED]}, table=True) == 1
    assert (
        "NO  name          web is in use\n                  rename one" in capsys.readouterr().out
    )


def test_an_error_of_the_engine_ends_the_command() -> None:
    with pytest.raises(CliError, match="no space"):
        print_all({"Stage": "dump"}, {"error": "no space", "errorDetail": {"message": "no space"}})


def test_the_outcome_of_an_interrupted_migration(capsys: pytest.CaptureFixture[str]) -> None:
    print_all({"Stage": "resumed", "Outcome": "never-ran"})
    assert capsys.readouterr().out == "It did not run at the target, and runs on here.\n"
