"""Step 2: a shell on a real terminal: size, ^C, detaching, coming back, its exit status."""

from __future__ import annotations

from jaula.demo.runner import TourRunner
from jaula.demo.terminal import Terminal

INTERRUPT, DETACH = "\x03", "\x10\x11"


def show(guide: TourRunner) -> None:
    """Play a person at a terminal."""
    name = guide.name("shell")
    words = ("run", "-it", "--name", name, guide.shell_image, guide.shell)
    guide.say("A shell on a terminal of 100 x 30 cells; the tour types.")
    guide.command("jaula", *words)
    with Terminal(guide.arguments(*words), 30, 100) as terminal:
        terminal.type("PS1='inside> '; stty size; echo pid=$$\n")
        guide.must(terminal.until("30 100"), "the container's terminal has the window's size")
        guide.must(terminal.until("pid=1"), "the shell is PID 1 of its own world")
        terminal.resize(40, 120)
        terminal.until("inside> ")
        terminal.type("sleep 0.3; stty size\n")
        guide.must(terminal.until("40 120"), "a larger window is a larger terminal inside")
        terminal.type("sleep 300 || echo stopped-$?\n")
        terminal.until("stopped-$?\n")
        terminal.until("\n", 0.7)
        terminal.type(INTERRUPT)
        terminal.type("\necho back-again\n")
        guide.must(
            terminal.until("\nback-again"), "control-C interrupts the program, not the shell"
        )
        terminal.type(DETACH)
        guide.must(terminal.wait() == 0, "control-P control-Q leaves the container running")
        guide.show(terminal.plain.decode("utf-8", "replace"))
    guide.say("It is still there:")
    running = guide.jaula("ps", "--filter", f"name={name}")
    guide.must("Up " in running.output and name in running.output, "ps shows it as running")
    guide.must(guide.pid(name) > 1, "inspect tells its process on the host")
    guide.say("Back to it, and out with a status of its own:")
    guide.command("jaula", "attach", name)
    with Terminal(guide.arguments("attach", name), 30, 100) as terminal:
        terminal.type("\nexit 7\n")
        status = terminal.wait()
        guide.show(terminal.plain.decode("utf-8", "replace"))
    guide.must(status == 7, f"the exit status came through (7, seen {status})")
