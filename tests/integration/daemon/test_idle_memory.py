"""Modules and libraries that an engine has loaded after the requests of one default container."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from jaula import feature

PROGRAM = """
import signal, sys
file = sys.argv.pop(1)

def write(*_):
    with open(file, "w") as listing:
        loaded = (name for name, each in sys.modules.items() if each and each.__spec__)
        print(*loaded, "end", file=listing)  # a stand-in of a module has no spec

signal.signal(signal.SIGUSR2, write)
from jaula.cli.main import run_and_exit
run_and_exit()
"""
LARGE = {
    *("_ast", "_decimal", "_hashlib", "_ssl", "bz2", "csv", "email", "hashlib", "hmac", "http"),
    *("lzma", "multiprocessing", "platform", "random", "secrets", "ssl", "tarfile"),
    *("tempfile", "tokenize", "unittest", "urllib", "uuid", "zipfile", "msgspec.inspect"),
    *("cryptography", "google", "h2", "re2", "wsproto", "yaml"),
}
UNUSED = {  # each needs a request of its own
    *("grpc", "oci.main", "images.archive", "runtime.zygote", "runtime.shim"),
    *("runtime.create.create", "runtime.init.exec"),
}


class ListedEngine(PrivateEngine):
    """An engine that writes the names of its modules to a file at SIGUSR2."""

    @property
    def listing(self) -> Path:
        return self.root / "modules"

    def command(self) -> list[str]:
        words = super().command()
        return [sys.executable, "-c", PROGRAM, str(self.listing), *words[words.index("daemon") :]]

    def modules(self) -> set[str]:
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + 10
        while not self.listing.exists() or not self.listing.read_text().endswith(" end\n"):
            assert time.monotonic() < deadline, self.log_tail()
            time.sleep(0.05)
        return set(self.listing.read_text().split())

    def has_mapped(self, library: str) -> bool:
        """Return whether the process has mapped a library; see proc_pid_maps(5)."""
        assert self.process is not None
        return f"/{library}" in Path(f"/proc/{self.process.pid}/maps").read_text()


@pytest.fixture
def used(worker_index: int) -> Iterator[ListedEngine]:
    """Yield an engine that had the requests of one container, and whose image is an older one's."""
    with leaks.nothing_left(ListedEngine((worker_index + 61) % 250 + 1)) as engine:
        load_image(engine, "busybox")
        engine.stop()
        engine.start()
        for path in ("/version", "/info", "/containers/json"):
            assert engine.request("GET", path).status == 200
        body = {"Image": "busybox", "Cmd": ["sleep", "600"]}
        container = engine.request("POST", "/containers/create", body).json()["Id"]
        assert engine.request("POST", f"/containers/{container}/start").status == 204
        words = {"Cmd": ["true"], "AttachStdout": True}
        made = engine.request("POST", f"/containers/{container}/exec", words).json()["Id"]
        started = engine.request("POST", f"/exec/{made}/start", {"Detach": True})
        assert started.status == 200, started
        assert engine.request("DELETE", f"/containers/{container}?force=1").status == 204
        yield engine


def test_an_idle_engine_has_loaded_no_module_of_an_unused_feature(used: ListedEngine) -> None:
    modules = used.modules()
    assert "jaula.engine.containers.start" in modules
    assert modules & LARGE == set()
    parents = {f"jaula.{name}" for name in UNUSED}
    assert not {name for name in modules if any(f"{name}.".startswith(f"{p}.") for p in parents)}
    idle = {
        f"{feature.PACKAGE}.{each.name}.{module}"
        for each in feature.features()
        for module in ("feature", *each.idle)
    }
    packages = {name.rpartition(".")[0] for name in idle} | {feature.PACKAGE}
    of_features = {name for name in modules if name.startswith(f"{feature.PACKAGE}.")}
    assert of_features <= idle | packages


def test_an_idle_engine_unloads_the_firewall_library_and_loads_it_again(used: ListedEngine) -> None:
    assert not used.has_mapped("libcrypto")
    deadline = time.monotonic() + 30
    while used.has_mapped("libnftables"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    reply = used.request("POST", "/networks/create", {"Name": "again"})
    assert reply.status == 201, reply
    assert used.has_mapped("libnftables")
    assert used.request("DELETE", "/networks/again").status == 204
