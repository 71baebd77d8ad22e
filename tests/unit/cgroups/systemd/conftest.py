"""A bus, and a manager on it or behind a private socket."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.systemd_manager import Manager, PrivateManager

CONFIG = """<busconfig><type>session</type><listen>unix:path={socket}</listen>
<auth>EXTERNAL</auth><policy context="default"><allow send_destination="*" eavesdrop="true"/>
<allow own="*"/><allow eavesdrop="true"/></policy></busconfig>"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    daemon = shutil.which("dbus-daemon")
    if daemon is None:
        pytest.fail("dbus-daemon is needed: apt install dbus-daemon")
    path = f"/tmp/jlt-bus-{os.getpid()}"
    config = tmp_path / "bus.conf"
    config.write_text(CONFIG.format(socket=path))
    process = subprocess.Popen(
        [daemon, f"--config-file={config}", "--nofork", "--print-address"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    yield path
    process.kill()
    process.wait()
    process.stdout.close()
    Path(path).unlink(missing_ok=True)


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    made = Manager(address)
    made.start()
    yield made
    made.end()


@pytest.fixture
def private_manager() -> Iterator[PrivateManager]:
    made = PrivateManager(f"/tmp/jlt-private-{os.getpid()}")
    made.start()
    yield made
    made.end()
