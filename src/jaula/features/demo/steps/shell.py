"""Step 2: a shell on a real terminal: size, ^C, detach, attach, exit status."""

from __future__ import annotations

from jaula.features.demo.runner import TourRunner
from jaula.features.demo.simulated_terminal import Terminal

INTERRUPT, DETACH = "\x03", "\x10\x11"


def show(tour: TourRunner) -> None:
    """Simulate a user at a terminal."""
    name = tour.name("shell")
    words = ("run", "-it", "--name", name, tour.shell_image, tour.shell)
    tour.text("A shell on a terminal of 100 x 30 cells; the tour types.")
    tour.command("jaula", *words)
    with Terminal(tour.arguments(*words), 30, 100) as terminal:
        terminal.type("PS1='inside> '; stty size; echo pid=$$\n")
        tour.check(terminal.until("30 100"), "the container's terminal has the window's size")
        tour.check(terminal.until("pid=1"), "the shell is PID 1 of its PID namespace")
        terminal.resize(40, 120)
        terminal.until("inside> ")
        terminal.type('while [ "$(stty size)" = "30 100" ]; do sleep 0.1; done; stty size\n')
        tour.check(terminal.until("40 120"), "a larger window is a larger terminal inside")
        # The text appears when the program runs: the echo of the keys has the quotes.
        terminal.type("sh -c 'echo run''ning; exec sleep 300'\n")
        terminal.until("\nrunning\n")
        terminal.type(INTERRUPT)
        terminal.type("\necho back-again\n")
        tour.check(
            terminal.until("\nback-again"), "control-C interrupts the program, not the shell"
        )
        terminal.type(DETACH)
        tour.check(terminal.wait() == 0, "control-P control-Q leaves the container running")
        tour.show(terminal.plain.decode("utf-8", "replace"))
    tour.text("It is still running:")
    running = tour.jaula("ps", "--filter", f"name={name}")
    tour.check("Up " in running.output and name in running.output, "ps shows it as running")
    tour.check(tour.pid(name) > 1, "inspect reports its pid on the host")
    tour.text("Attach again, and exit with a status:")
    tour.command("jaula", "attach", name)
    with Terminal(tour.arguments("attach", name), 30, 100) as terminal:
        terminal.type("\nexit 7\n")
        status = terminal.wait()
        tour.show(terminal.plain.decode("utf-8", "replace"))
    tour.check(status == 7, "the exit status is returned (expected 7, got {status})", status=status)
