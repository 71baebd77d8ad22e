"""Ansible's unmodified ``community.docker``: a playbook in two rounds of which one changes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness import client_packages
from harness.engine import PrivateEngine

pytestmark = [
    pytest.mark.client(name="Ansible community.docker"),
    pytest.mark.packages,
    pytest.mark.timeout(900),
]

PLAYBOOK = Path(__file__).parent / "ansible" / "playbook.yml"
PACKAGES = ("ansible==12.3.0", "requests==2.32.5")


def test_the_playbook_changes_nothing_in_its_second_round(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    programs = client_packages.pip("ansible", *PACKAGES)
    done = subprocess.run(
        [
            *(str(programs / "ansible-playbook"), "-i", "localhost,"),
            *("-e", f"ansible_python_interpreter={programs / 'python'}", str(PLAYBOOK)),
        ],
        env=engine.environment()
        | {
            "HOME": str(tmp_path),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "LC_ALL": "C.UTF-8",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr + engine.log_tail()
    found = json.loads(done.stdout[done.stdout.index("{") :])["stats"]["localhost"]
    # The playbook itself asserts that its second round changes nothing.
    assert (found["failures"], found["unreachable"], found["skipped"]) == (0, 0, 0)
    assert found["ok"] == 26
