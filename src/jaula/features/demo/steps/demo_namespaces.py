"""Step 3: the namespaces of a container and of the host."""

from __future__ import annotations

from jaula.features.demo import kernel
from jaula.features.demo.runner import TourRunner


def show(tour: TourRunner) -> None:
    """Compare the links in /proc."""
    name = tour.start("spaces")
    pid = tour.pid(name)
    host, container = kernel.namespaces("self"), kernel.namespaces(pid)
    tour.text("/proc/self/ns on the host, and /proc/{pid}/ns of the container:", pid=pid)
    tour.show("\n".join(f"{kind:<8} {host[kind]:<22} {container[kind]}" for kind in host))
    same = [kind for kind in host if host[kind] == container[kind]]
    if same:
        tour.check(False, "all seven differ but {same}", same=same)
    else:
        tour.check(True, "all seven differ")
    first = tour.jaula("exec", name, "cat", "/proc/1/cmdline")
    tour.check(first.output.startswith("sleep"), "the program is PID 1 inside")
    tour.text("The host's process tree, with the namespaces that change at each process:")
    tree = tour.jaula("tree", name)
    tour.check(tree.status == 0 and "sleep" in tree.output, "the tree reaches the program")
