"""A running container whose isolation is verified while another program changes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.engine import PrivateEngine
from jaula.features.verify.model.host_snapshot import HostSnapshot
from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.verify import render, verify
from jaula.kernel import mountinfo, mounts
from jaula.kernel.namespace_threads import in_unshared_thread, join_namespaces
from jaula.spec import runtime_spec


class Audited:
    """A container, its two documents, and commands with the host's powers in its namespaces."""

    def __init__(self, engine: PrivateEngine, name: str) -> None:
        self.engine = engine
        self.name = name
        self.inspect: dict[str, Any] = containers.inspect(engine, name)
        reply = engine.request("GET", f"/jaula/containers/{self.inspect['Id']}/spec")
        self.spec = runtime_spec.decode(reply.body)
        self.pid: int = self.inspect["State"]["Pid"]
        self.snapshot = HostSnapshot()

    def rows(self) -> dict[str, Result]:
        self.snapshot = self.snapshot.renewed()
        self.snapshot.networks = self.engine.request("GET", "/networks").json()
        self.inspect = containers.inspect(self.engine, self.name)
        execs = [
            self.engine.request("GET", f"/exec/{exec_id}/json").json()
            for exec_id in self.inspect["ExecIDs"] or ()
        ]
        result = verify(self.inspect, self.spec, snapshot=self.snapshot, execs=execs)
        assert len({row.id for row in result}) == len(result), "two rows of one name"
        return {row.id: row for row in result}

    def failing(self) -> dict[str, str]:
        """Return the effective values of the failing rows, by row."""
        return {n: row.effective for n, row in self.rows().items() if row.verdict is Verdict.FAILS}

    def explain(self) -> str:
        return render(list(self.rows().values()))

    def enter(self, kinds: str, *command: str) -> str:
        """Run a command in namespaces of the container: letters of nsenter(1)."""
        words = ["nsenter", "-t", str(self.pid), *(f"-{kind}" for kind in kinds), *command]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def in_mounts(self, script: str) -> str:
        """Run a script of the container's shell in its mount namespace."""
        return self.enter("m", "/bin/sh", "-ec", script)

    def attach(self, source: str, target: str) -> None:
        """Attach a clone of a tree of the host at a path of the container."""

        def attach() -> None:
            tree = mounts.clone_tree(source)
            try:
                join_namespaces(self.pid, ("mnt",))
                mounts.move_mount(tree, target)
            finally:
                os.close(tree)

        in_unshared_thread(attach)

    def control(self, *files: str) -> Path:
        """Return the first control file that the container's cgroup has in any hierarchy."""
        mounted = [m for m in mountinfo.read(errors="replace") if m.fstype.startswith("cgroup")]
        for names, path in containers.cgroups(self.pid):
            for mount in mounted:
                if (mount.fstype == "cgroup2") != (not names):
                    continue
                if names and not set(names.split(",")) & set(mount.super_options):
                    continue
                for file in files:
                    found = Path(mount.target, path.lstrip("/"), file)
                    if file and found.exists():
                        return found
        pytest.skip(f"this kernel has none of {', '.join(files)}")
