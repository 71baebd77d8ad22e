"""Records of an ordinary user's engine: samples of /proc, and a seccomp agent."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.callers.caller import until
from harness.rootless import RootlessHost

pytestmark = [pytest.mark.xdist_group("rootless")]


@pytest.fixture(scope="module")
def host(busybox_archive: Path) -> Iterator[RootlessHost]:
    """Yield a user with an image, whose first command has started the engine."""
    with RootlessHost() as made:
        made.load(busybox_archive)
        yield made


def test_a_running_container_is_sampled(host: RootlessHost) -> None:
    host.jaula("run", "-d", "--name", "sampled", "busybox", "sleep", "600")
    process = subprocess.Popen(
        host.as_user(f"{host.tree}/jaula", "record", "-o", f"{host.state}/sampled.record",
                     "--for", "4s", "sampled"),
        env=host.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "recording" in line, line + process.stderr.read()
        host.jaula(
            "exec", "sampled", "sh", "-c", "/bin/sleep 5 | /bin/nc -l -p 99 & sleep 2; kill $!"
        )
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, output + errors
    shown = host.jaula("record", "show", "--all", f"{host.state}/sampled.record").stdout
    assert "Mechanism: proc" in shown
    assert "Not recorded:" in shown
    assert "/bin/nc" in shown
    assert ":99 tcp (from the kernel)" in shown


def test_a_new_container_is_recorded_by_a_seccomp_agent(host: RootlessHost) -> None:
    path = f"{host.state}/new.record"
    done = host.jaula("run", "--rm", f"--record={path}", "busybox", "sh", "-c",
                      "echo x > /tmp/known; /bin/cat /tmp/known; /bin/nc -w 1 127.0.0.1 4321",
                      expect=None)  # fmt: skip
    assert done.stdout.startswith("x\n"), done.stderr
    shown = host.jaula("record", "show", "--all", path).stdout
    assert "Mechanism: seccomp" in shown
    assert "/tmp/known read" in shown
    assert "127.0.0.1:4321 tcp" in shown


def test_the_container_goes_on_when_its_record_is_ended(host: RootlessHost) -> None:
    path = f"{host.state}/ended.record"
    done = host.jaula("run", "-d", "--name", "ended", f"--record={path}", "busybox", "sleep", "600")
    recorder = int(done.stderr.split("process ")[1].split()[0])
    host.run("kill", f"-{signal.SIGTERM.value}", str(recorder))
    until(lambda: '"end"' in host.path(path).read_text(), "the end of the record")
    assert host.jaula("exec", "ended", "sh", "-c", "echo goes on").stdout == "goes on\n"
    host.jaula("rm", "-f", "ended")


def test_ebpf_needs_root(host: RootlessHost) -> None:
    done = host.jaula("run", "--rm", "--record", "--record-mechanism", "ebpf", "busybox", "true",
                      expect=125)  # fmt: skip
    assert "needs root" in done.stderr
