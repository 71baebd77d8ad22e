"""``top``: the rows of ps that belong to a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.engine.containers.top import name_users, parse, ps_environment, user_ids
from jaula.errors import InvalidRequest


def test_rows_of_other_processes_are_left_out() -> None:
    found = parse("  PID CMD\n   10 sleep 5 6\n   11 sh\n", {10})
    assert found == {"Titles": ["PID", "CMD"], "Processes": [["10", "sleep 5 6"]]}


@pytest.mark.parametrize("output", ["", "USER CMD\nroot sh\n"])
def test_output_without_a_pid_is_refused(output: str) -> None:
    with pytest.raises(InvalidRequest, match="PID"):
        parse(output, {1})


ROWS = "UID PID USER RUID CMD\n1000+ 10 1000+ 1000033 sleep\n1000+ 11 1000+ 1000000 sh\n"


def test_users_are_those_of_the_container() -> None:
    found = parse(ROWS, {10, 11})
    name_users(found, {10: (33, 33, 33, 33), 11: (0, 5, 0, 0)}, {33: "web"}, numeric=False)
    assert [row[:4] for row in found["Processes"]] == [
        ["web", "10", "web", "33"],
        ["5", "11", "5", "0"],
    ]


def test_a_column_of_numbers_has_numbers() -> None:
    found = parse(ROWS, {10})
    name_users(found, {10: (33, 33, 33, 33)}, {33: "web"}, numeric=True)
    assert found["Processes"][0][:4] == ["33", "10", "web", "33"]


def test_a_process_that_has_exited_keeps_its_row() -> None:
    found = parse(ROWS, {10})
    name_users(found, {}, {}, numeric=False)
    assert found["Processes"][0][0] == "1000+"


def test_ids_are_mapped_as_the_process_sees_them(tmp_path: Path) -> None:
    process = tmp_path / "10"
    process.mkdir()
    (process / "status").write_text("Name:\tx\nUid:\t1000033\t1000000\t5\t1000033\n")
    (process / "uid_map").write_text("         0    1000000      65536\n")
    assert user_ids([10, 11], str(tmp_path)) == {10: (33, 0, 65534, 33)}


def test_variables_that_change_the_columns_do_not_reach_ps() -> None:
    kept = {"PATH": "/bin", "LANG": "C", "LC_TIME": "C", "TZ": "UTC"}
    changing = {"COLUMNS": "80", "LINES": "24", "PS_FORMAT": "pid", "PS_PERSONALITY": "bsd"}
    assert ps_environment(kept | changing) == kept
