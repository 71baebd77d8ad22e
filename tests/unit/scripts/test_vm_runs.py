"""The results in virtual machines: parsing an output, and the table."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from harness.engine import PROJECT as ROOT
from harness.scripts import load_script


@pytest.fixture(scope="module")
def vm_runs() -> ModuleType:
    return load_script("vm_runs")


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


def test_every_path_of_a_run_exists(vm_runs: ModuleType) -> None:
    for run in vm_runs.RUNS:
        for path in run.tests:
            assert (ROOT / path).exists(), path


def test_the_page_of_results_has_a_table_of_known_runs(vm_runs: ModuleType) -> None:
    rows = vm_runs.TABLE.read((ROOT / "docs/vm-results.md").read_text())
    assert rows
    assert set(rows) <= {run.name for run in vm_runs.RUNS}


def test_a_row_names_the_tests_of_the_run(vm_runs: ModuleType) -> None:
    run = vm_runs.Run("one", (), ("tests/security", "tests/unit/x.py"))
    result = vm_runs.Outcome(0, "a machine", "7 passed", "")
    text = vm_runs.row(run, result, "2026-01-02", "abc+")
    assert text == "| one | a machine | security, unit/x.py | 7 passed | 2026-01-02 | abc+ |"


def test_the_short_runs_have_each_machine_once(vm_runs: ModuleType) -> None:
    """Init system and security module; checkpoints and quotas have boots of their own."""
    short = [run for run in vm_runs.RUNS if run.short]
    assert {run.name for run in short} == {
        "short-systemd", "short-cgroup2", "short-apparmor", "short-selinux", "short-quotas",
        "short-checkpoints",
    }  # fmt: skip
    machines = {words for run in short for words in run.machine}
    assert {"systemd", "apparmor", "selinux"} <= machines


def test_only_the_short_runs_are_executed(
    vm_runs: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vm").write_text("#!/bin/sh\necho machine: Linux\necho 1 passed in 1.0s\n")
    (tmp_path / "vm").chmod(0o755)
    monkeypatch.setenv("VMLAB", str(tmp_path / "vm"))
    runs = (vm_runs.Run("one", (), ("a",)), vm_runs.Run("two", (), ("b",), short=True))
    monkeypatch.setattr(vm_runs, "RUNS", runs)
    monkeypatch.setattr(vm_runs, "pack", lambda _: None)
    page = tmp_path / "page.md"
    table = vm_runs.TABLE._replace(keys=("one", "two"))
    monkeypatch.setattr(vm_runs, "TABLE", table)
    page.write_text(f"{table.begin}\n{table.text({})}\n{table.end}\n")
    assert vm_runs.main(["--short", "--write", str(page)]) == 0
    rows = table.read(page.read_text())
    assert list(rows) == ["two"]
    assert rows["two"].split(" | ")[-1].rstrip("+ |") in vm_runs.commit()


def test_a_row_names_settings_that_change_the_tests(
    vm_runs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAULA_UPGRADE_CONTAINERS", "5")
    run = vm_runs.Run("one", (), ("tests/security",))
    text = vm_runs.row(run, vm_runs.Outcome(0, "a machine", "7 passed", ""), "2026-01-02", "abc")
    assert "security, JAULA_UPGRADE_CONTAINERS=5 |" in text


def test_the_machine_gets_the_settings_and_packages_are_built_once(
    vm_runs: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "vm").write_text('#!/bin/sh\necho "$@"\necho 1 passed in 1.0s\n')
    (tmp_path / "vm").chmod(0o755)
    monkeypatch.setenv("VMLAB", str(tmp_path / "vm"))
    monkeypatch.setenv("JAULA_UPGRADE_CONTAINERS", "5")
    build = ("sh", "-c", f"echo built >> {tmp_path}/builds")
    runs = (
        vm_runs.Run("packages", (), ("a",), (), build),
        vm_runs.Run("packages-selinux", (), ("b",), (), build),
    )
    monkeypatch.setattr(vm_runs, "RUNS", runs)
    packed: list[Path] = []
    monkeypatch.setattr(vm_runs, "pack", packed.append)
    words = ["packages", "packages-selinux", "--logs", str(tmp_path)]
    assert vm_runs.main(words) == 0
    assert (tmp_path / "builds").read_text() == "built\n"
    assert vm_runs.main([*words, "--prepared"]) == 0
    assert (tmp_path / "builds").read_text() == "built\n"
    log = (tmp_path / "packages.log").read_text()
    assert f"-- env JAULA_VM_ARCHIVE={packed[0]} JAULA_UPGRADE_CONTAINERS=5 scripts/in-vm" in log
    assert len(packed) == 4  # before each run: a preparation changes the files


def test_the_archive_for_a_machine_has_the_tree_and_its_environment(tmp_path: Path) -> None:
    """And neither the packages of the static checks nor those of the site."""
    tree = tmp_path / "tree"
    for name in ("scripts/in-vm", "pyproject.toml", "jaula", "jaula-runtime"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    library = ".venv/lib/python3.13/site-packages"
    kept = {
        "src/jaula/__init__.py", "src/jaula/oci/a.py", "src/jaula/__pycache__/a.pyc", "tests/t.py",
        "packaging/p", "bench/run", "docs/a.md", "README.md", ".venv/pyvenv.cfg",
        ".venv/bin/python", ".venv/.done-test", ".venv/test-images/busybox.tar",
        f"{library}/h11/__pycache__/a.pyc", "dist/upgrade/new/jaula.deb", "src/jaula/rich/pip.py",
    }  # fmt: skip
    left_out = {f"{library}/mypy/a.py", f"{library}/sphinx/a.py", ".git/config", "dist/x.whl"}
    for name in kept | left_out:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    python = tree / ".venv/bin/python"
    python.unlink()
    python.symlink_to(sys.executable)
    modules = "src/jaula/oci/__pycache__/jaula.modules"
    (tree / "scripts/setup").write_text(f'#!/bin/sh\n[ "$1" = archive ] && echo >{modules}\n')
    (tree / "scripts/setup").chmod(0o755)
    archive = tmp_path / "out/vm-tree.tar"
    subprocess.run([tree / "scripts/in-vm", "--pack", archive], check=True)
    source = "src/jaula/__init__.py"
    compiled = importlib.util.cache_from_source(source)
    with tarfile.open(archive) as file:
        members = {member.name.removeprefix("./"): member for member in file.getmembers()}
    assert kept | {compiled, modules} <= members.keys()
    assert not left_out & members.keys()
    # Archives of compiled modules have this time of each source, to the nanosecond.
    assert members[source].mtime == pytest.approx((tree / source).stat().st_mtime, abs=1e-6)
