"""I6: masked and read-only paths are in effect, and the mask's source belongs to the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import containers, images
from harness.engine import PrivateEngine

MASKED = (
    ("CVE-2018-10892", "/proc/acpi"),
    ("CVE-2020-8694", "/sys/devices/virtual/powercap"),
    ("CVE-2025-31133", "/proc/kcore"),
    ("CVE-2025-31133", "/proc/keys"),
    ("CVE-2025-31133", "/proc/latency_stats"),
    ("CVE-2025-31133", "/proc/timer_list"),
    ("CVE-2025-31133", "/proc/sched_debug"),
    ("CVE-2025-31133", "/proc/scsi"),
    ("CVE-2025-31133", "/sys/firmware"),
    ("CVE-2025-31133", "/proc/interrupts"),
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@pytest.mark.parametrize(("cve", "path"), MASKED)
def test_a_masked_path_is_empty(engine: PrivateEngine, plain: str, cve: str, path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"this kernel has no {path}")
    words = ("sh", "-c", f"if [ -d {path} ]; then ls -A {path}; else head -c 100 {path}; fi")
    done = engine.cli("jaula", "exec", plain, *words)
    assert done.stdout == "", f"{path} shows {done.stdout!r}"


@pytest.mark.parametrize("path", READ_ONLY)
def test_a_read_only_path_cannot_be_written(engine: PrivateEngine, plain: str, path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"this kernel has no {path}")
    result = containers.mountinfo(containers.pid(engine, plain))
    assert path in result, f"{path} is no mount of its own"
    assert "ro" in result[path].options


@pytest.mark.parametrize("cve", ["CVE-2025-31133"])
@pytest.mark.parametrize("target", ["/tmp/fake", "/proc/sys/kernel/core_pattern", "/proc/keys"])
def test_the_masks_do_not_come_from_the_image(engine: PrivateEngine, cve: str, target: str) -> None:
    """The image's /dev/null is a link: the masks must still be the engine's."""
    entries = [
        *images.busybox_entries(),
        images.link("dev/null", target),
        images.file("tmp/fake", b"a false mask"),
    ]
    name = images.import_image(engine, "false-null", entries)
    done = engine.cli("jaula", "run", "--rm", name, "sh", "-c", "head -c 64 /proc/keys; echo end")
    if done.returncode == 0:
        assert done.stdout == "end\n"
    else:
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("cve", ["CVE-2025-31133 CVE-2025-52881"])
def test_replacing_dev_null_inside_removes_no_mask(
    engine: PrivateEngine, busybox: str, cve: str
) -> None:
    words = "rm -f /dev/null; echo fake > /dev/null; head -c 64 /proc/keys; echo end"
    done = engine.cli("jaula", "run", "--rm", busybox, "sh", "-c", words)
    assert "end\n" in done.stdout
    assert "fake" not in done.stdout


@pytest.mark.parametrize("cve", ["CVE-2025-31133"])
def test_a_mask_cannot_be_unmounted_from_inside(
    engine: PrivateEngine, plain: str, cve: str
) -> None:
    done = engine.cli("jaula", "exec", plain, "umount", "/proc/keys")
    assert done.returncode != 0
