"""Step 7: ten containers of one image, each with its own writable layer."""

from __future__ import annotations

from jaula.features.demo.runner import TourRunner

COUNT = 10


def show(tour: TourRunner) -> None:
    """Start the containers, compare them and remove them."""
    tour.text("{count} containers of one image; each writes its own file:", count=COUNT)
    names = []
    for number in range(COUNT):
        name = tour.name(f"cow{number}")
        script = f"echo {number} > /mine-{number}; sleep 600"
        words = ("run", "-d", "--name", name, tour.image, "sh", "-c", script)
        started = tour.jaula(*words, echo=number < 2)
        tour.check(started.status == 0, "container {number} started", number=number)
        names.append(name)
    listed = tour.jaula("exec", names[3], "sh", "-c", "ls -d /mine-*")
    tour.check(listed.output.split() == ["/mine-3"], "each sees only its own file")
    changes = [tour.jaula("diff", name, echo=name == names[0]).output for name in names]
    tour.check(
        all(f"A /mine-{number}" in text for number, text in enumerate(changes)),
        "diff shows the changes of each container",
    )
    usage = tour.jaula("system", "df")
    tour.check(usage.status == 0, "the image's layers are counted once")
    sizes = tour.jaula("ps", "--size", "--format", "table {{.Names}}\t{{.Size}}")
    tour.check("virtual" in sizes.output, "ps --size shows the sizes of writable layer and image")
    gone = tour.jaula("rm", "-f", *names)
    left = tour.jaula("ps", "-aq", "--filter", f"name={names[0]}")
    tour.check(gone.status == 0 and not left.output.strip(), "rm removes the writable layer")
    again = tour.jaula("run", "--rm", tour.image, "sh", "-c", "ls -d /mine-*")
    tour.check(again.status != 0, "the image is unchanged")
