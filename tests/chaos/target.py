"""A private engine that is killed and started again, with a registry and a ledger."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chaos import roles
from conftest import load_image
from harness import leaks
from harness.engine import SLOW, PrivateEngine, Reply
from harness.registry import Registry
from integration.network.conftest import new_namespace
from jaula.features.kubernetes.cni.bridge_config import bridge_conflist
from jaula.kernel.netlink import in_netns

LIMIT = 20.0 * SLOW  # seconds until an answer counts as missing
SETTLE = 10.0 * SLOW  # seconds until what is left counts as a leak
POD_SUBNET = "10.232.0.0/16"  # in a network namespace of its own
Gone = (ConnectionError, FileNotFoundError, http.client.HTTPException)
"""Errors of a client whose engine has ended. A timeout is not one."""


class Fault(Exception):
    """An invariant that does not hold."""


class Target:
    """The engine under test. ``ledger`` is a directory of the host in which programs write.

    ``limit`` and ``settle`` are LIMIT and SETTLE; a test of a missing answer shortens them. With
    ``pods`` the engine serves CRI, in the network namespace ``netns``. ``addresses`` is the
    directory of the addresses that CNI has given to its pods.
    """

    def __init__(self, index: int, *, pods: bool = False) -> None:
        self.index = index
        self.pods = pods
        self.netns = new_namespace() if pods else os.open("/proc/self/ns/net", os.O_RDONLY)
        self.limit, self.settle = LIMIT, SETTLE
        self.directory = Path(tempfile.mkdtemp(prefix="jlc"))
        self.ledger = self.directory / "ledger"
        self.ledger.mkdir(mode=0o777)
        self.ledger.chmod(0o777)
        self.addresses = self.directory / "addresses"
        self.registry: Registry | None = None
        self.engine: PrivateEngine
        self.new_engine()

    def new_engine(self) -> None:
        self.engine = PrivateEngine(self.index, extra_flags=self._pod_flags() if self.pods else ())
        self._start()
        load_image(self.engine, "busybox")

    def _pod_flags(self) -> tuple[str, ...]:
        """Write the configuration of the pods' network; return the flags that name it."""
        document = json.loads(bridge_conflist((POD_SUBNET,), bridge="jlc-pods"))
        document["plugins"][0]["ipam"]["dataDir"] = str(self.addresses)
        directory = self.directory / "net.d"
        directory.mkdir(exist_ok=True)
        (directory / "10-chaos.conflist").write_text(json.dumps(document))
        return ("--cri", "--cni-conf-dir", str(directory), "--cni-bin-dir", "/usr/lib/cni")

    def _start(self) -> None:
        with in_netns(self.netns):
            self.engine.start()

    def remote_image(self) -> str:
        """Return an image of the registry, which is started and filled at the first use."""
        if self.registry is None:
            with in_netns(self.netns):
                self.registry = Registry(self.directory / "registry").start()
            name = f"{self.registry.name}/chaos"
            self.must("POST", f"/images/busybox/tag?repo={name}&tag=latest", None, 201)
            head = {"X-Registry-Auth": "e30="}
            pushed = self.engine.request("POST", f"/images/{name}/push?tag=latest", headers=head)
            assert b'"error"' not in pushed.body, pushed
        return f"{self.registry.name}/chaos:latest"

    # requests

    def must(self, method: str, path: str, body: Any, *allowed: int) -> Reply:
        """Send a request that has to succeed.

        :raises Fault: when no answer comes in time, or another one.
        """
        try:
            reply = self.engine.request(method, path, body, timeout=self.limit)
        except (OSError, http.client.HTTPException) as error:
            raise Fault(f"{method} {path}: {error!r}") from error
        if reply.status not in allowed:
            raise Fault(f"{method} {path}: {reply.status} {reply.body[:400]!r}")
        return reply

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + self.limit
        while not condition():
            if time.monotonic() > deadline:
                raise Fault(f"does not happen: {what}")
            time.sleep(0.02)

    def images_are_whole(self) -> None:
        """Verify every image.

        :raises Fault: when one is damaged.
        """
        reply = self.must("GET", "/jaula/images/verify", None, 200)
        for line in reply.body.decode().splitlines():
            document = json.loads(line)
            if document.get("Damages") or document.get("error"):
                raise Fault(f"an image is damaged: {document}")

    def check(self) -> None:
        """Run ``system check``.

        :raises Fault: when it finds something.
        """
        findings = self.must("GET", "/jaula/system/check?contents=1", None, 200).json()["Findings"]
        if findings:
            raise Fault(f"system check: {findings}")

    def remove(self, name: str) -> None:
        """Remove a container by force; twice, since the first answer may say that it is at work."""
        self.must("DELETE", f"/containers/{name}?force=1&v=1", None, 204, 404, 409)
        self.until(
            lambda: self.must("GET", f"/containers/{name}/json", None, 200, 404).status == 404,
            f"rm -f of {name}",
        )

    # the engine

    def alive(self) -> bool:
        return self.engine.process is not None and self.engine.process.poll() is None

    def restart(self) -> None:
        """Start the engine that has ended.

        :raises Fault: when it does not answer in time.
        """
        if self.engine.process is not None:
            self.engine.process.wait(self.limit)
            self.engine.process = None
        try:
            self._start()
        except AssertionError as error:
            raise Fault(f"the next engine does not serve: {error}") from error

    def strays(self) -> list[str]:
        """Return what is left while no container exists."""
        left = [f"{kind}: {rows}" for kind, rows in leaks.of_containers(self.engine).items()]
        for process in roles.processes(self.engine):
            if process.role not in ("engine", "zygote", "spare"):
                left.append(f"process {process}")
        return left

    def nothing_left(self) -> None:
        """Wait until nothing of a container is left.

        :raises Fault: with what is.
        """
        deadline = time.monotonic() + self.settle
        while left := self.strays():
            if time.monotonic() > deadline:
                raise Fault(f"left behind: {left}")
            time.sleep(0.05)

    def reset(self) -> None:
        """End everything of this engine by force, and start a new one."""
        self._destroy()
        self.registry, registry = None, self.registry
        if registry is not None:
            registry.stop()
            shutil.rmtree(registry.directory)
        shutil.rmtree(self.addresses, ignore_errors=True)
        self.new_engine()

    def _destroy(self) -> None:
        """End every process, frozen ones too, and remove what the engine has left."""
        engine = self.engine
        deadline = time.monotonic() + self.settle
        while (left := roles.processes(engine)) and time.monotonic() < deadline:
            _thaw(engine)
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            if engine.process is not None:
                engine.process.poll()
            time.sleep(0.02)
        if engine.process is not None:
            engine.process.wait(self.limit)
            engine.process = None
        leaks.clean_up(engine)
        self._delete_tables(engine)
        engine.delete_directories()

    def _delete_tables(self, engine: PrivateEngine) -> None:
        for line in leaks.tables(engine):  # "table inet NAME"
            subprocess.run(["nft", "delete", *line.split()], check=False)

    def close(self) -> list[str]:
        """End the engine as an owner would; return what it has left."""
        left: list[str] = []
        try:
            if not self.alive():
                self.restart()
            self.engine.discard()
            left = [f"{kind}: {rows}" for kind, rows in leaks.of_engine(self.engine).items()]
        except (AssertionError, Fault, OSError, http.client.HTTPException) as error:
            left = [f"the engine could not be discarded: {error}"]
        finally:
            if self.registry is not None:
                self.registry.stop()
            self._destroy()
            os.close(self.netns)
            shutil.rmtree(self.directory, ignore_errors=True)
        return left


def _thaw(engine: PrivateEngine) -> None:
    """Thaw every container: a frozen process does not die of SIGKILL on cgroup v1."""
    for path in leaks.cgroups_now(engine):
        for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            file = Path(path) / name
            with contextlib.suppress(OSError):
                if file.exists():
                    file.write_text(value)


@contextlib.contextmanager
def target(index: int, *, pods: bool = False) -> Iterator[Target]:
    """Yield a target, and close it.

    :raises Fault: when its engine leaves something behind.
    """
    made = Target(index, pods=pods)
    try:
        yield made
    except BaseException:
        made.close()
        raise
    if left := made.close():
        raise Fault(f"left behind by the engine: {left}")
