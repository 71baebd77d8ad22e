"""The results of clients: parsing pytest's report, and the table in docs/clients.md."""

from __future__ import annotations

import re
from collections import Counter
from types import ModuleType

import pytest

from harness.engine import PROJECT
from harness.scripts import load_script

MARKER = re.compile(r"pytest\.mark\.client\(name=\"([^\"]+)\"\)")
REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="t" name="a"/>
<testcase classname="t" name="b"><failure message="x"/></testcase>
<testcase classname="t" name="c"><error message="x"/></testcase>
<testcase classname="t" name="d"><skipped message="no npm"/></testcase>
<testcase classname="t" name="e"><skipped message="no npm"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def client_runs() -> ModuleType:
    return load_script("client_runs")


def test_the_cases_of_a_report_are_counted(client_runs: ModuleType) -> None:
    result = client_runs.outcome(REPORT, 1)
    assert (result.passed, result.failed) == (1, ("t::b", "t::c"))
    assert result.reasons == Counter({"no npm": 2})
    assert result.skipped == "2: no npm"


@pytest.mark.parametrize(
    ("report", "status"),
    [
        ("", 124),  # a time-out
        ("<testsuites/>", 5),  # no case
        ("<testsuites/>", 0),
        ('<testsuite><testcase classname="t" name="a"/></testsuite>', 3),  # an internal error
    ],
)
def test_a_run_without_a_result_has_failed(
    client_runs: ModuleType, report: str, status: int
) -> None:
    assert client_runs.outcome(report, status).failed == (f"pytest: status {status}",)


def test_a_client_that_is_not_installed_has_no_version(client_runs: ModuleType) -> None:
    client = client_runs.Client("absent", client_runs.node("absent", "absent"))
    text = client_runs.row(client, client_runs.outcome(REPORT, 1), "2026-01-02")
    assert text.startswith("| absent | not installed: ")
    assert text.endswith("| 1 | 2 | 2: no npm | 2026-01-02 |")


def test_every_client_has_tests_and_every_test_a_client(client_runs: ModuleType) -> None:
    texts = [path.read_text() for path in (PROJECT / "tests/acceptance").rglob("test_*.py")]
    marked = {name for text in texts for name in MARKER.findall(text)}
    assert marked == set(client_runs.TABLE.keys)
    assert all(client_runs.modules(client) for client in client_runs.CLIENTS)


def test_the_page_of_clients_has_a_table_of_known_clients(client_runs: ModuleType) -> None:
    rows = client_runs.TABLE.read((PROJECT / "docs/clients.md").read_text())
    assert rows
    assert set(rows) <= set(client_runs.TABLE.keys)
