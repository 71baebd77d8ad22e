"""The base of every caller: private namespaces, a runtime, a command line and a leak check."""

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
    """A caller of ``runtime`` with the busybox image of ``archive``; a context manager."""

    kept_groups = ""

    @property
    def kept_mounts(self) -> tuple[str, ...]:
        """Return the mount points that the caller creates and keeps."""
        return ()

    def __init__(self, runtime: Path, archive: Path) -> None:
        self.runtime = runtime
        self.archive = archive
        self.namespaces = PrivateNamespaces()

    def start(self) -> None:
        """Write the configuration, start the daemon and load the image, in open namespaces."""
        raise NotImplementedError

    def stop(self) -> None:
        """Remove every container, then stop the daemon."""
        raise NotImplementedError

    def words(self, *words: str) -> list[str]:
        """Return the whole command line of ``words``, before it enters the namespaces."""
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
        """Run the command line and assert the exit status ``expect``; None allows any.

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
        """Return the output of the command without its last newline."""
        done = self(*words, **options)
        return str(done.stdout).rstrip("\n")

    def terminal(self, *words: str) -> Terminal:
        """Return a terminal of 24 rows and 80 columns that runs the command."""
        return Terminal(self.namespaces.enter(self.words(*words)), self.environment())


def has_terminal(terminal: Terminal) -> None:
    """Assert that a shell has a terminal with the size of the caller.

    The function waits for the size: clients set it after the program started.
    """
    terminal.expect("# ")
    terminal.send("tty; until stty size 2>&1 | grep -x '24 80'; do sleep 0.1; done\n")
    terminal.expect(r"[\r\n]/dev/pts/0\s+24 80")


def follows_size(terminal: Terminal) -> None:
    """Assert that a shell receives a change of the terminal's size.

    The change is repeated: a client that has just started may not handle it yet.
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
    """Wait for a condition that the kernel or a daemon fulfils."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not in {seconds:g} s"
        time.sleep(0.05)
