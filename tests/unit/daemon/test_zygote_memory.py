"""Modules that a zygote shares with every shim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
PROGRAM = """
import os, sys
os.geteuid = lambda: 0
from jaula.cli import command_parser
from jaula.cli import daemon
from jaula.daemon import engine_main

def launch(load_interfaces, **_):
    from jaula.runtime import zygote  # as the forked process does

    load_interfaces()
    print(*sorted(name for name, module in sys.modules.items() if module is not None))

def main_of_engine(config, _):
    from jaula.runtime import runtime_client

    runtime_client.Runtime.launch = launch
    engine_main._launch(config, -1)

engine_main.main = main_of_engine
daemon.run(command_parser.parse(daemon.COMMAND, ("--config-file", "/dev/null")))
"""
LARGE = {
    *("ast", "asyncio", "dataclasses", "email", "hashlib", "http", "inspect", "ipaddress"),
    *("logging", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "tokenize"),
}
OF_THE_ENGINE = ("api", "buildkit", "cri", "engine", "images", "network", "state", "storage")


def test_a_zygote_imports_no_module_of_the_engine_and_no_large_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PROJECT / "src"), "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert "jaula.runtime.shim.shim" in modules
    assert modules & LARGE == set()
    assert not {name for name in modules if name.split(".")[1:2] in [[n] for n in OF_THE_ENGINE]}
