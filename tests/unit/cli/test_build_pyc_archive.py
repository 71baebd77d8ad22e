"""The modules of frequent commands of the client in one file, which the launcher's script loads."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.engine import PROJECT
from jaula.cli import build_pyc_archive
from jaula.oci import pyc_archive

SITE = os.path.dirname(os.path.dirname(__import__("msgspec").__file__))
HOST = "unix:///nonexistent/s"
UNREACHABLE = f"Cannot connect to the jaula engine at {HOST}. Is the engine running?"
PACKAGES = ("cli", "oci", "spec", "translation")


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"JAULA_HOST": HOST, "PATH": os.environ["PATH"]},
    )


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher and the packages that a client imports, with the files of ``scripts/setup``."""
    root = tmp_path_factory.mktemp("clone")
    source = PROJECT / "src/jaula"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source / package, root / "src/jaula" / package, ignore=ignored)
    for file in source.glob("*.py"):
        shutil.copy(file, root / "src/jaula")
    shutil.copy(PROJECT / "jaula", root)
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").symlink_to(sys.executable)
    (root / ".venv/.done-runtime").touch()
    path = [str(root / "src"), SITE]
    script = f"import sys; sys.path[:0] = {path!r}\nfrom jaula.cli import build_pyc_archive\n"
    done = run(root / ".venv/bin/python", "-ISXutf8", "-c", script + "build_pyc_archive.main()")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return root


def client(clone: Path, *words: str) -> tuple[str, set[str]]:
    """Return the errors of a command, and the modules that the import system has loaded."""
    script = clone / "src/jaula/oci/__pycache__" / pyc_archive.CLIENT_SCRIPT
    done = run(sys.executable, "-ISXutf8", "-X", "importtime", script, *words)
    lines = done.stderr.splitlines(keepends=True)
    imports = [line for line in lines if line.startswith("import time:")]
    names = {line.rpartition("|")[2].strip() for line in imports}
    errors = "".join(line for line in lines if line not in imports)
    return errors, {name for name in names if name.partition(".")[0] == "jaula"}


@contextlib.contextmanager
def changed(file: Path, content: bytes) -> Iterator[None]:
    """Another content of a file for a while."""
    st, original = file.stat(), file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(original)
        os.utime(file, ns=(st.st_atime_ns, st.st_mtime_ns))


@pytest.mark.parametrize(
    "words",
    [
        ("exec", "c", "true"),
        ("--host", HOST, "run", "--rm", "busybox", "true"),
        ("container", "exec", "c", "true"),
        *((word,) for word in ("images", "info", "ps")),
        *((word, "c") for word in ("attach", "inspect", "kill", "logs", "restart", "rm", "stop")),
        *((word, "c") for word in ("create", "start", "wait")),
    ],
    ids=" ".join,
)
def test_a_frequent_command_imports_no_module(clone: Path, words: Sequence[str]) -> None:
    errors, imported = client(clone, *words)
    assert UNREACHABLE in errors
    assert imported == set()


def test_the_frequent_commands_are_all_tested() -> None:
    (mark,) = test_a_frequent_command_imports_no_module.pytestmark
    tested = {word for words in mark.args[1] for word in words}
    assert set(build_pyc_archive.COMMANDS) <= tested


def test_another_command_imports_its_own_modules_only(clone: Path) -> None:
    errors, imported = client(clone, "volume", "rm", "c")
    assert UNREACHABLE in errors
    assert imported == {"jaula.cli.volume"}


def test_an_argument_that_names_another_command_is_an_argument(clone: Path) -> None:
    assert UNREACHABLE in client(clone, "volume", "rm", "run")[0]


def test_a_changed_module_is_imported(clone: Path) -> None:
    file = clone / "src/jaula/cli/exec_.py"
    with changed(file, file.read_bytes() + b"\nraise KeyError('changed')\n"):
        errors, imported = client(clone, "exec", "c", "true")
    assert f"internal error at {file}:" in errors
    assert "KeyError: 'changed'" in errors
    assert imported == {"jaula.cli.exec_"}
    assert client(clone, "exec", "c", "true")[1] == set()


@pytest.mark.parametrize("content", [b"", b"other and more", b"\0" * 64])
def test_without_an_archive_of_this_interpreter_modules_are_imported(
    clone: Path, content: bytes
) -> None:
    with changed(clone / "src/jaula/oci/__pycache__" / pyc_archive.CLIENT_NAME, content):
        errors, imported = client(clone, "exec", "c", "true")
    assert UNREACHABLE in errors
    assert {"jaula.cli.main", "jaula.cli.exec_"} <= imported


def test_the_archive_of_another_clone_is_left_alone(clone: Path, tmp_path: Path) -> None:
    shutil.copytree(clone, tmp_path / "copy", symlinks=True)
    errors, imported = client(tmp_path / "copy", "exec", "c", "true")
    assert UNREACHABLE in errors
    assert "jaula.cli.exec_" in imported


def test_the_engine_can_import_whole_modules(clone: Path) -> None:
    """A command of the client that runs the engine has docstrings and all of ``typing``."""
    command = clone / "src/jaula/cli/volume.py"
    program = b"import typing, signal\nfrom jaula.cli import help\nRM = None\n"
    program += b"raise KeyError(bool(help.__doc__), signal.Signals(9).name, typing.Optional[int])\n"
    with changed(command, program):
        errors = client(clone, "volume", "rm", "c")[0]
    assert "KeyError: (True, 'SIGKILL', typing.Optional[int])" in errors


def test_no_module_is_loaded_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(build_pyc_archive.COMMAND_MODULES, "ps", ("typing",))
    order = build_pyc_archive.record_order("ps")
    assert {"jaula.cli.ps", "functools"} <= set(order)
    assert not pyc_archive.PARTIAL.intersection(order)


def test_the_launcher_runs_the_script(clone: Path) -> None:
    with changed(clone / "src/jaula/__main__.py", b"print('source')"):
        done = run(clone / "jaula", "exec", "c", "true")
    assert (done.stdout, done.returncode) == ("", 1)
    assert UNREACHABLE in done.stderr


def test_the_launcher_leaves_an_older_script_alone(clone: Path) -> None:
    source = clone / "src/jaula/oci/pyc_archive.py"
    with (
        changed(clone / "src/jaula/__main__.py", b"print('source')"),
        changed(source, source.read_bytes()),
    ):
        os.utime(source, (2**32, 2**32))
        done = run(clone / "jaula", "exec", "c", "true")
    assert (done.stdout, done.returncode) == ("source\n", 0)


@pytest.mark.parametrize("launcher", ["jaula", "jaula-runtime"])
def test_the_launcher_renews_an_environment_without_its_interpreter(
    clone: Path, tmp_path: Path, launcher: str
) -> None:
    """``scripts/setup`` makes ``.done-runtime`` a link to the interpreter."""
    copy = tmp_path / "copy"
    shutil.copytree(clone, copy, symlinks=True)
    shutil.copy(PROJECT / launcher, copy)
    python, done_link = copy / ".venv/bin/python", copy / ".venv/.done-runtime"
    python.unlink()
    python.symlink_to("/nonexistent/python3.1")
    done_link.unlink()
    done_link.symlink_to("bin/python")
    setup = copy / "scripts/setup"
    setup.parent.mkdir()
    setup.write_text(f"#!/bin/sh\necho setup $1\nln -sf {sys.executable} {python}\n")
    setup.chmod(0o755)
    for script in copy.glob("src/jaula/oci/__pycache__/*.pyc"):
        script.unlink()
    for package in ("", "oci"):
        (copy / "src/jaula" / package / "__main__.py").write_text("print('source')")
    done = run(copy / launcher, "create", "c")
    assert (done.stdout, done.stderr, done.returncode) == ("source\n", "setup runtime\n", 0)
    done = run(copy / launcher, "create", "c")
    assert (done.stdout, done.stderr, done.returncode) == ("source\n", "", 0)


def test_an_installed_command_uses_the_archive(clone: Path) -> None:
    """As packaging/install writes it."""
    script = f"import sys\nsys.path.insert(0, {str(clone / 'src')!r})\n"
    script += "from jaula.oci.pyc_archive import run_client\nrun_client()\n"
    done = run(sys.executable, "-ISXutf8", "-X", "importtime", "-c", script, "exec", "c", "true")
    assert UNREACHABLE in done.stderr
    assert "jaula.oci.pyc_archive" in done.stderr
    assert "jaula.cli" not in done.stderr
