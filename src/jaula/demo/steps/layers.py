"""Step 7: ten containers of one image, each with its own delta."""

from __future__ import annotations

from jaula.demo.runner import TourRunner

COUNT = 10


def show(guide: TourRunner) -> None:
    """Start them, compare, remove."""
    guide.say(f"{COUNT} containers of one image; each writes a file of its own:")
    names = []
    for number in range(COUNT):
        name = guide.name(f"cow{number}")
        script = f"echo {number} > /mine-{number}; sleep 600"
        words = ("run", "-d", "--name", name, guide.image, "sh", "-c", script)
        started = guide.jaula(*words, told=number < 2)
        guide.must(started.status == 0, f"container {number} started")
        names.append(name)
    own = guide.jaula("exec", names[3], "sh", "-c", "ls -d /mine-*")
    guide.must(own.output.split() == ["/mine-3"], "each sees only its own file")
    changes = [guide.jaula("diff", name, told=name == names[0]).output for name in names]
    guide.must(
        all(f"A /mine-{number}" in text for number, text in enumerate(changes)),
        "diff shows each one's delta",
    )
    usage = guide.jaula("system", "df")
    guide.must(usage.status == 0, "the image's layers are counted once")
    sizes = guide.jaula("ps", "--size", "--format", "table {{.Names}}\t{{.Size}}")
    guide.must("virtual" in sizes.output, "ps --size tells delta and image apart")
    gone = guide.jaula("rm", "-f", *names)
    left = guide.jaula("ps", "-aq", "--filter", f"name={names[0]}")
    guide.must(gone.status == 0 and not left.output.strip(), "with rm the delta is gone")
    again = guide.jaula("run", "--rm", guide.image, "sh", "-c", "ls -d /mine-*")
    guide.must(again.status != 0, "the image is as it was")
