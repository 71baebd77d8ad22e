"""The parts of a start that a spare helper executes, on the real kernel."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from jaula.runtime import seqpacket
from jaula.runtime.shim import prefault
from jaula.runtime_interfaces import runtime_interfaces


def test_the_parts_of_shim_and_helper_leave_nothing() -> None:
    interfaces = runtime_interfaces()
    ours, theirs = seqpacket.pair()
    with closing(ours), closing(theirs):
        parts = (*prefault.of_shim(interfaces), *prefault.of_helper(interfaces))
        prefault.run(parts, theirs)
        before = state()
        prefault.run(parts, theirs)
        assert state() == before


def state() -> tuple[set[str], str, str]:
    """Return the descriptors of this process, its mounts and its children."""
    return (
        {path.name for path in Path("/proc/self/fd").iterdir()},
        Path("/proc/self/mountinfo").read_text(),
        Path("/proc/thread-self/children").read_text(),
    )
