"""The BPF program of a v2 cgroup is compared with the spec's, instruction by instruction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.cgroups import device_rules
from jaula.cgroups.v2 import devices_v2
from jaula.features.verify.checks import devices
from jaula.kernel.mountinfo import parse
from jaula.security.allowed_devices import DEFAULT_RULES
from jaula.spec.runtime_spec import DeviceCgroup


@pytest.fixture
def group() -> Iterator[Path]:
    """Return an empty cgroup in the host's v2 hierarchy."""
    table = parse(Path("/proc/self/mountinfo").read_text())
    tree = next((m.target for m in table if m.fstype == "cgroup2"), None)
    if tree is None:
        pytest.skip("no cgroup v2 tree is mounted here")
    made = Path(tree) / f"jlt-devices-{os.getpid()}"
    made.mkdir()
    try:
        yield made
    finally:
        made.rmdir()


def load(group: Path, requested: tuple[DeviceCgroup, ...]) -> None:
    directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    try:
        devices_v2.apply(directory, str(group), device_rules.normalize(requested))
    finally:
        os.close(directory)


def test_only_the_spec_s_program_is_expected(group: Path) -> None:
    expected = devices_v2.assemble(device_rules.normalize(DEFAULT_RULES))
    assert devices.attached_programs(str(group)) == []
    load(group, DEFAULT_RULES)
    ((_, code, tag),) = devices.attached_programs(str(group))
    assert devices.is_expected(expected, code, tag)
    assert devices.is_expected(expected, b"", tag), "the kernel's digest is not the one expected"
    load(group, (*DEFAULT_RULES, DeviceCgroup(True, "c", 1, 1, "rw")))
    ((_, code, tag),) = devices.attached_programs(str(group))
    assert not devices.is_expected(expected, code, tag)
    assert not devices.is_expected(expected, b"", tag)
