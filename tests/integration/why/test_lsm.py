"""``jaula why`` names the LSM, which only a virtual machine has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from harness import containers
from harness.engine import PrivateEngine

PROFILES = "/sys/kernel/security/apparmor/profiles"

pytestmark = [pytest.mark.vm, pytest.mark.needs(PROFILES)]


@pytest.fixture
def profile() -> Iterator[str]:
    """A profile that allows everything except writing below /tmp."""
    text = "profile jaula-why-test { file, capability, network, signal, audit deny /tmp/** w, }"
    subprocess.run(["apparmor_parser", "-r", "-K"], input=text, text=True, check=True)
    yield "jaula-why-test"
    subprocess.run(["apparmor_parser", "-R", "-K"], input=text, text=True, check=True)


def test_a_rule_of_apparmor_is_recognized(
    engine: PrivateEngine, busybox: str, profile: str
) -> None:
    flags = ("--security-opt", f"apparmor={profile}")
    with containers.running(engine, busybox, flags=flags) as name:
        done = engine.cli("jaula", "why", "--format", "json", name, "--", "sh", "-c",
                          "echo x > /tmp/x")  # fmt: skip
        assert done.returncode == 0, done.stderr
        (found,) = json.loads(done.stdout)["diagnoses"]
    explanation = found["explanation"]
    assert explanation["layer"] == "lsm"
    assert "apparmor DENIED" in explanation["proof"]
    assert f"profile {profile} has no rule" in explanation["rule"]
    assert "/tmp/x" in explanation["rule"]
