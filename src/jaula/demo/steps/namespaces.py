"""Step 3: the namespaces of a container and of the host."""

from __future__ import annotations

from jaula.demo import kernel
from jaula.demo.runner import TourRunner


def show(guide: TourRunner) -> None:
    """Compare the links in /proc."""
    name = guide.start("spaces")
    pid = guide.pid(name)
    ours, theirs = kernel.namespaces("self"), kernel.namespaces(pid)
    guide.say(f"/proc/self/ns on the host, and /proc/{pid}/ns of the container:")
    guide.show("\n".join(f"{kind:<8} {ours[kind]:<22} {theirs[kind]}" for kind in ours))
    same = [kind for kind in ours if ours[kind] == theirs[kind]]
    guide.must(not same, "all seven differ" + (f" but {same}" if same else ""))
    first = guide.jaula("exec", name, "cat", "/proc/1/cmdline")
    guide.must(first.output.startswith("sleep"), "the program is PID 1 inside")
    guide.say("The host's side, with the namespaces that change at each process:")
    tree = guide.jaula("tree", name)
    guide.must(tree.status == 0 and "sleep" in tree.output, "the tree reaches the program")
