"""The table of results in virtual machines: parsing an output, and keeping rows of other runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts/vm_runs.py"


@pytest.fixture(scope="module")
def vm_runs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vm_runs", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vm_runs"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("line", "summary"),
    [
        ("12 failed, 96 passed, 5 skipped, 60 warnings in 867.77s (0:14:27)",
         "12 failed, 96 passed, 5 skipped"),
        ("7 passed in 3.21s", "7 passed"),
        ("===== 1 passed, 2 errors in 3.21s =====", "1 passed, 2 errors"),
        ("vmlab: time limit", "no summary of pytest: status 124"),
    ],
)  # fmt: skip
def test_the_last_line_of_pytest_is_the_outcome(
    vm_runs: ModuleType, line: str, summary: str
) -> None:
    result = vm_runs.outcome(124, f"machine: Linux 6.12, cgroup v2\n.....\n{line}\n")
    assert (result.machine, result.summary) == ("Linux 6.12, cgroup v2", summary)


def test_a_machine_that_did_not_start_is_reported(vm_runs: ModuleType) -> None:
    result = vm_runs.outcome(125, "vmlab: qemu not found\n")
    assert (result.machine, result.summary) == ("did not start", "no summary of pytest: status 125")


def test_rows_of_other_runs_are_kept_in_their_order(vm_runs: ModuleType, tmp_path: Path) -> None:
    names = [run.name for run in vm_runs.RUNS]
    document = tmp_path / "document.md"
    document.write_text(f"before\n{vm_runs.BEGIN}\n{vm_runs.END}\nafter\n")
    for name, text in ((names[2], "old"), (names[0], "first"), (names[2], "new")):
        run = next(run for run in vm_runs.RUNS if run.name == name)
        result = vm_runs.Outcome(0, "a machine", text, "")
        vm_runs.replace(document, {name: vm_runs.row(run, result, "2026-01-02")})
    lines = document.read_text().splitlines()
    assert [line for line in lines if "machine |" in line and "2026" in line] == [
        line for line in lines if line.startswith((f"| {names[0]} |", f"| {names[2]} |"))
    ]
    table = "\n".join(lines)
    assert table.index("first") < table.index("new") and "old" not in table
    assert table.startswith("before") and table.endswith("after")
    (tmp_path / "none.md").write_text("no place")
    with pytest.raises(SystemExit):
        vm_runs.replace(tmp_path / "none.md", {})


def test_every_path_of_a_run_exists(vm_runs: ModuleType) -> None:
    for run in vm_runs.RUNS:
        for path in run.tests:
            assert (SCRIPT.parents[1] / path).exists(), path


def test_the_page_of_results_has_a_table_of_known_runs(vm_runs: ModuleType) -> None:
    text = (SCRIPT.parents[1] / "docs/vm-results.md").read_text()
    _, begin, rest = text.partition(vm_runs.BEGIN)
    table, end, _ = rest.partition(vm_runs.END)
    assert begin and end
    assert set(vm_runs.rows(table.strip())) <= {run.name for run in vm_runs.RUNS}
