"""Run the tests of the API's clients, one client after another, and print a table of the results.

    ./test --clients [NAME...] [--write docs/clients.md] [--logs DIRECTORY]

A test belongs to a client by its marker ``client(name=...)``. Suites that install packages (marker
``packages``) run too. With ``--write`` the table of the document is updated: a client that is not
selected keeps its row. The exit status is 0 if nothing failed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import result_table

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TESTS = "tests/acceptance"
LIMIT = 3600  # seconds of one client
WORKERS = "2"


def program(*words: str) -> Callable[[], str]:
    """Return a function that gets the version from the output of a command."""

    def version() -> str:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        match = re.search(r"\d+\.\d+[\w.+~-]*", done.stdout)
        return match[0] if match else done.stdout.strip()

    return version


def python(package: str) -> Callable[[], str]:
    """Return a function that gets the version of a package of this environment."""
    return lambda: importlib.metadata.version(package)


def node(directory: str, package: str) -> Callable[[], str]:
    """Return a function that gets the version of a package that npm has installed."""

    def version() -> str:
        path = VENV / directory / "node_modules" / package / "package.json"
        return str(json.loads(path.read_text(encoding="utf-8"))["version"])

    return version


def environment(directory: str, package: str) -> Callable[[], str]:
    """Return a function that gets the version of a package in an environment of its own."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return program(str(VENV / directory / "bin" / "python"), "-c", code)


class Client(NamedTuple):
    """A client: its name in the marker, and a function that returns its version after the run."""

    name: str
    version: Callable[[], str]


CLIENTS = (
    Client("docker command", program("docker", "--version")),
    Client("buildx", program("docker", "buildx", "version")),
    Client("docker compose", program("docker", "compose", "version", "--short")),
    Client("docker (PyPI)", python("docker")),
    Client("aiodocker", python("aiodocker")),
    Client("python-on-whales", environment("python-on-whales", "python-on-whales")),
    Client("testcontainers (PyPI)", python("testcontainers")),
    Client("testcontainers (npm)", node("node-testcontainers", "testcontainers")),
    Client("@devcontainers/cli", node("node-devcontainers", "@devcontainers/cli")),
    Client("dockerode", node("node", "dockerode")),
    Client("skopeo", program("skopeo", "--version")),
    Client("Ansible community.docker", environment("ansible", "ansible")),
)
TABLE = result_table.Table(
    "client runs",
    ("client", "version", "passed", "failed", "skipped", "date"),
    tuple(client.name for client in CLIENTS),
)


class Outcome(NamedTuple):
    """The cases of a client. ``reasons`` counts the reasons of the skipped ones."""

    passed: int
    failed: tuple[str, ...]
    reasons: Counter[str]

    @property
    def skipped(self) -> str:
        """Return the number of skipped cases, with the reasons."""
        total = self.reasons.total()
        return f"{total}: {'; '.join(sorted(self.reasons))}" if total else "0"


def outcome(report: str, status: int) -> Outcome:
    """Parse pytest's JUnit report; no report, or one without a case, is a failed case.

    Status 5 of pytest is no case at all.
    """
    passed, failed, reasons = 0, list[str](), Counter[str]()
    for case in ElementTree.fromstring(report).iter("testcase") if report else ():
        kinds = {child.tag: child for child in case}
        if "failure" in kinds or "error" in kinds:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif (skipped := kinds.get("skipped")) is not None:
            reasons[skipped.get("message") or "no reason"] += 1
        else:
            passed += 1
    if not failed and (status or not passed + reasons.total()):
        failed.append(f"pytest: status {status}")
    return Outcome(passed, tuple(failed), reasons)


def modules(client: Client) -> list[str]:
    """Return the test modules with the marker of a client; to collect all of them takes long."""
    marker = f'client(name="{client.name}")'
    paths = sorted((ROOT / TESTS).rglob("test_*.py"))
    return [str(path) for path in paths if marker in path.read_text(encoding="utf-8")]


def execute(client: Client, log: Path) -> Outcome:
    """Run the tests of a client and wait; the output goes to ``log``."""
    report = log.with_suffix(".xml")
    report.unlink(missing_ok=True)
    paths = modules(client)
    workers = ("-n", WORKERS, "--dist", "loadfile") if len(paths) > 1 else ("-n0",)
    marker = f"client(name={client.name!r}) and not vm"
    words = [sys.executable, "-m", "pytest", "-q", *workers, "-m", marker, *paths]
    words += [f"--junitxml={report}", "-o", "junit_family=xunit1"]
    with log.open("wb") as file:
        try:
            status = subprocess.run(
                words,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=LIMIT,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status = 124
    text = report.read_text(encoding="utf-8") if report.exists() else ""
    return outcome(text, status)


def row(client: Client, result: Outcome, date: str) -> str:
    """Return one row of the table."""
    try:
        version = client.version()
    except (OSError, subprocess.SubprocessError, importlib.metadata.PackageNotFoundError) as error:
        version = f"not installed: {error}"
    return TABLE.row(client.name, version, result.passed, len(result.failed), result.skipped, date)


def main(words: Sequence[str]) -> int:
    """Run the selected clients, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="./test --clients",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(TABLE.keys)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {names}")
    parser.add_argument("--write", type=Path, help="document to update the table in")
    parser.add_argument("--logs", type=Path, help="directory for the output of each client")
    options = parser.parse_args(words)
    if unknown := result_table.unknown(options.names, TABLE.keys):
        parser.error(unknown)
    rows: dict[str, str] = {}
    failed = False
    with tempfile.TemporaryDirectory(prefix="client-runs-") as scratch:
        logs = options.logs or Path(scratch)
        logs.mkdir(parents=True, exist_ok=True)
        for client in CLIENTS:
            if options.names and client.name not in options.names:
                continue
            start = time.monotonic()
            log = logs / (re.sub(r"\W+", "-", client.name).strip("-") + ".log")
            result = execute(client, log)
            rows[client.name] = row(client, result, result_table.today())
            counts = (
                f"{result.passed} passed, {len(result.failed)} failed, {result.skipped} skipped"
            )
            sys.stderr.write(f"{client.name}: {counts} ({time.monotonic() - start:.0f} s)\n")
            if result.failed:
                failed = True
                tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-60:]
                sys.stderr.write("\n".join([*tail, *result.failed, ""]))
            if options.write is not None:
                TABLE.replace(options.write, {client.name: rows[client.name]})
    result_table.report(TABLE.text(rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
