"""Step 1: the engine's information about the host, and the kernel's features."""

from __future__ import annotations

from jaula.features.demo.runner import TourRunner

LINES = (
    "Containers:", "Images:", "Storage Driver:", "Backing Filesystem:", "Logging Driver:",
    "Cgroup Driver:", "Cgroup Version:", "Volume: local", "Network: bridge host",
    "Security Options:", "Kernel Version:", "Operating System:", "CPUs:", "Total Memory:",
    "Root Dir:", "ID:",
)  # fmt: skip


def show(tour: TourRunner) -> None:
    """Run ``info`` and ``check``."""
    tour.text("The first command that needed an engine started it. Its information:")
    info = tour.jaula("info")
    missing = [line for line in LINES if line not in info.output]
    tour.check(info.status == 0, "the engine answers")
    if missing:
        tour.check(False, "info has every line but {missing}", missing=missing)
    else:
        tour.check(True, "info has every line")
    tour.text("The kernel's support for containers, feature by feature:")
    check = tour.jaula("check")
    tour.check(check.status == 0, "the kernel has all required features")
    for word in ("namespace", "cgroup", "overlay", "seccomp", "bridge"):
        tour.check(word in check.output.lower(), "check reports on: {word}", word=word)
