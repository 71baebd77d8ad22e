"""Runner of the tour: text output, commands as a user types them, and checks of the results."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import jaula
from jaula.translation import po_catalog
from jaula.translation.language import ENGLISH

TIMEOUT = 120.0  # seconds for one command
MAIN = Path(jaula.__file__).with_name("__main__.py")


class Result(NamedTuple):
    """The result of one command."""

    status: int
    output: str
    error: str


class TourRunner:
    """Prints the tour on standard output and records failed checks."""

    def __init__(self, host: str, *, quick: bool, language: str = ENGLISH) -> None:
        self.quick = quick
        self._translate = po_catalog.translator(language)
        self.image = "busybox"
        self.shell_image = "busybox" if quick else "debian"
        self.shell = "sh" if quick else "bash"
        self.failures: list[str] = []
        self._host = ["--host", host] if host else []
        self._containers: list[str] = []
        self._images: list[str] = []
        self._networks: list[str] = []
        self._volumes: list[str] = []
        self._scratch = tempfile.TemporaryDirectory(prefix="jaula-demo-")
        self._color = (
            sys.stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )

    @property
    def scratch(self) -> Path:
        """Return the temporary directory of the tour, removed at its end."""
        return Path(self._scratch.name)

    # -- output -------------------------------------------------------------------------------

    def translated(self, text: str, **values: object) -> str:
        """Return a text in the language of the tour, with values for the names in braces."""
        text = self._translate(text)
        return text.format(**values) if values else text

    def title(self, number: int, text: str) -> None:
        """Print the heading of a step."""
        self.line("")
        self.line(f"── {number}. {self.translated(text)} ".ljust(78, "─"), "1")

    def text(self, text: str, **values: object) -> None:
        """Print a paragraph, in the language of the tour."""
        self.line("")
        self.line(self.translated(text, **values))

    def show(self, text: str, limit: int = 60) -> None:
        """Print indented output; the middle of a long one is left out."""
        lines = text.rstrip("\n").split("\n")
        if len(lines) > limit:
            omitted = len(lines) - limit
            gap = self.translated("... {count} lines ...", count=omitted)
            lines = [*lines[: limit - 5], gap, *lines[-5:]]
        for line in lines:
            self.line("  " + line)

    def check(self, condition: object, sentence: str, **values: object) -> None:
        """Print whether a check passed. A failed check fails the tour."""
        sentence = self.translated(sentence, **values)
        if condition:
            self.line(f"  [ok] {sentence}", "32")
        else:
            self.line(f"  {self.translated('[NOT SEEN]')} {sentence}", "31")
            self.failures.append(sentence)

    def failed(self, error: StepFailed) -> None:
        """Record the failure that ended a step."""
        self.check(False, error.text, **error.values)

    def line(self, text: str, color: str = "") -> None:
        """Print one line, in a colour (SGR number) if the terminal supports it."""
        output = f"\x1b[{color}m{text}\x1b[0m" if color and self._color else text
        sys.stdout.write(output + "\n")
        sys.stdout.flush()

    # -- commands -----------------------------------------------------------------------------

    def jaula(self, *words: str, show_output: bool = True, echo: bool = True) -> Result:
        """Run ``jaula words``; print the command (``echo``) and its output (``show_output``)."""
        if echo:
            self.command("jaula", *words)
        done = subprocess.run(
            self.arguments(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        result = Result(
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )
        if echo and show_output:
            text = result.output + result.error
            if text.strip():
                self.show(text)
        if echo and result.status:
            self.line("  " + self.translated("(exit status {status})", status=result.status))
        return result

    def command(self, *words: str) -> None:
        """Print a command line."""
        self.line("")
        self.line("$ " + shlex.join(words), "36")

    def arguments(self, *words: str) -> list[str]:
        """Return the argument list that runs ``jaula words`` with this interpreter."""
        return [sys.executable, "-I", "-S", "-X", "utf8", str(MAIN), *self._host, *words]

    def name(self, word: str) -> str:
        """Return a name for a container, which is removed at the end of the tour."""
        return self._own(self._containers, word)

    def own_image(self, word: str) -> str:
        """Return a name for an image, which is removed at the end of the tour."""
        return self._own(self._images, word, ":tour")

    def network(self, word: str) -> str:
        """Return a name for a network, which is removed at the end of the tour."""
        return self._own(self._networks, word)

    def volume(self, word: str) -> str:
        """Return a name for a volume, which is removed at the end of the tour."""
        return self._own(self._volumes, word)

    def _own(self, names: list[str], word: str, end: str = "") -> str:
        name = f"demo-{word}-{os.getpid()}{end}"
        if name not in names:
            names.append(name)
        return name

    def start(self, word: str, *words: str, image: str = "") -> str:
        """Start a sleeping container in the background and return its name.

        :raises StepFailed: when it does not start.
        """
        name = self.name(word)
        result = self.jaula(
            "run", "-d", "--name", name, *words, image or self.image, "sleep", "600"
        )
        if result.status:
            raise StepFailed("the container {name} did not start", name=name)
        return name

    def pid(self, name: str) -> int:
        """Return the host's pid of the container's init process.

        :raises StepFailed: when the container has no process.
        """
        result = self.jaula("inspect", "-f", "{{.State.Pid}}", name)
        if result.status or not result.output.strip().isdigit():
            raise StepFailed("{name} has no process", name=name)
        return int(result.output)

    def clean(self) -> None:
        """Remove all containers, images, networks, volumes and files of the tour."""
        if self._containers:
            self.jaula("rm", "-f", "-v", *self._containers, echo=False)
        if self._images:
            self.jaula("rmi", "-f", *self._images, echo=False)
        if self._networks:
            self.jaula("network", "rm", *self._networks, echo=False)
        if self._volumes:
            self.jaula("volume", "rm", "-f", *self._volumes, echo=False)
        self._containers, self._images, self._networks, self._volumes = [], [], [], []
        self._scratch.cleanup()


class StepFailed(Exception):
    """A step cannot continue. ``text`` is English, with names of ``values`` in braces."""

    def __init__(self, text: str, **values: object) -> None:
        super().__init__(text.format(**values) if values else text)
        self.text = text
        self.values = values
