"""``top``: the rows of ps that belong to a container."""

from __future__ import annotations

import pytest

from jaula.engine.containers.top import parse
from jaula.errors import InvalidRequest


def test_rows_of_other_processes_are_left_out() -> None:
    found = parse("  PID CMD\n   10 sleep 5 6\n   11 sh\n", {10})
    assert found == {"Titles": ["PID", "CMD"], "Processes": [["10", "sleep 5 6"]]}


@pytest.mark.parametrize("output", ["", "USER CMD\nroot sh\n"])
def test_output_without_a_pid_is_refused(output: str) -> None:
    with pytest.raises(InvalidRequest, match="PID"):
        parse(output, {1})
