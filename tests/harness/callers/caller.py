"""What every caller of a runtime has: a room, a runtime, a command line and a check at its end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.callers.private_namespaces import PrivateNamespaces
from harness.terminal import Terminal

if TYPE_CHECKING:
    from typing import Self

IMAGE = "docker.io/library/busybox:latest"
TIMEOUT = 240.0 if "JAULA_VM" in os.environ else 40.0  # seconds; emulation is slow


class Caller:
    """A caller of ``runtime`` with the busybox image of ``archive``; used as a context."""

    kept_groups = ""

    @property
    def kept_mounts(self) -> tuple[str, ...]:
        """Mount points that the caller makes for itself, and keeps."""
        return ()

    def __init__(self, runtime: Path, archive: Path) -> None:
        self.runtime = runtime
        self.archive = archive
        self.namespaces = PrivateNamespaces()

    def start(self) -> None:
        """Inside an open room: configuration, daemon, image."""
        raise NotImplementedError

    def stop(self) -> None:
        """Remove every container, then end the daemon."""
        raise NotImplementedError

    def words(self, *words: str) -> list[str]:
        """The whole command line of ``words``, before it enters the room."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        kept = ("PATH", "LANG", "TERM")
        return {key: os.environ[key] for key in kept if key in os.environ} | {"HOME": "/root"}

    def __enter__(self) -> Self:
        self.namespaces.open()
        try:
            self.start()
        except BaseException:
            self.namespaces.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        try:
            self.stop()
            left = self.namespaces.leaks(mounts=self.kept_mounts, groups=self.kept_groups)
        finally:
            self.namespaces.close()
        assert kind is not None or not left, f"left behind: {left}"

    def __call__(
        self, *words: str, expect: int | None = 0, before: Sequence[str] = (), **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line; ``expect``: the exit status that is asserted, None for any.

        ``before`` are words of a command that executes the rest, in namespaces of the host.
        """
        settings: dict[str, Any] = {
            "capture_output": True,
            "text": True,
            "timeout": TIMEOUT,
            "env": self.environment(),
        }
        if "input" not in options and "stdin" not in options:
            settings["stdin"] = subprocess.DEVNULL
        done = subprocess.run(
            [*before, *self.namespaces.enter(self.words(*words))], **(settings | options)
        )
        assert expect is None or done.returncode == expect, (
            f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def out(self, *words: str, **options: Any) -> str:
        """What the command prints, without its last line end."""
        done = self(*words, **options)
        return str(done.stdout).rstrip("\n")

    def terminal(self, *words: str) -> Terminal:
        """The command line, typed at a terminal of 24 rows and 80 columns."""
        return Terminal(self.namespaces.enter(self.words(*words)), self.environment())


def has_terminal(terminal: Terminal) -> None:
    """Assert that a shell at the terminal has one, of the caller's size.

    The size is waited for: clients set it when the program runs already.
    """
    terminal.expect("# ")
    terminal.send("tty; until stty size 2>&1 | grep -x '24 80'; do sleep 0.1; done\n")
    terminal.expect(r"[\r\n]/dev/pts/0\s+24 80")


def follows_size(terminal: Terminal) -> None:
    """Assert that a shell at the terminal hears of a change of its size.

    The change is repeated: a client that has just begun may not listen for it yet.
    """
    terminal.send("until stty size | grep -x '30 100'; do sleep 0.1; done\n")

    def heard() -> bool:
        terminal.resize(31, 100)
        terminal.resize(30, 100)
        try:
            terminal.expect(r"[\r\n]30 100", 1.0)
        except AssertionError:
            return False
        return True

    until(heard, "the new size arrives")


def until(condition: Callable[[], bool], what: str, seconds: float = TIMEOUT / 2) -> None:
    """Wait for a condition that the kernel or a daemon brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not in {seconds:g} s"
        time.sleep(0.05)
