"""The tour of the method: configure, record, harden, prove, explain, watch and audit a service.

The service is a guestbook: a Python program and its PostgreSQL database, from Debian's packages.
The quick tour has busybox's web server instead.
"""

from __future__ import annotations

import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from jaula.features.demo.runner import TIMEOUT, Result, StepFailed, TourRunner

CONTEXT = Path(__file__).resolve().parent / "guestbook"
READY = 60.0  # seconds for the service to answer
ENTRY = "hello from the tour"


def _read_until(process: subprocess.Popen[str], word: str) -> str:
    """Return the output of a process up to a line with ``word``, or to its end."""
    assert process.stdout is not None
    lines = ""
    for line in process.stdout:
        lines += line
        if word in line:
            break
    return lines


class Method:
    """The steps, which share the containers and files of one service."""

    def __init__(self, tour: TourRunner) -> None:
        self._tour = tour
        self._web = tour.name("web")
        self._database = "" if tour.quick else tour.name("database")
        self._network = tour.network("guestbook")
        self._volume = tour.volume("guestbook")
        self._records = {name: str(tour.scratch / f"{name}.record") for name in self._containers()}
        self._profiles = {name: str(tour.scratch / f"{name}.toml") for name in self._containers()}

    def steps(self) -> tuple[tuple[str, Callable[[TourRunner], None]], ...]:
        """Return titles and functions of the steps, in their order."""
        return tuple(
            (title, lambda _, step=step: step())
            for title, step in (
                ("Configure: a service that runs", self._configure),
                ("Record: what it does", self._record),
                ("Harden: the least that it needs", self._harden),
                ("Run: with exactly that", self._run),
                ("Verify: proof that all else is refused", self._verify),
                ("Why: a refusal explained", self._why),
                ("Drift: notice what changes", self._drift),
                ("Audit: benchmark and report", self._audit),
            )
        )

    def _configure(self) -> None:
        tour = self._tour
        if not tour.quick:
            tour.text("A guestbook: a Python program, and PostgreSQL with a volume.")
            for target in ("database", "web"):
                image = self._image(target)
                tour.command("jaula", "build", "-q", "--target", target, "-t", image, str(CONTEXT))
                self._build(target, image)
        tour.jaula("network", "create", self._network)
        tour.text("It runs with the engine's defaults, which are Docker's and stricter.")
        self._start()
        tour.check(self._serves(), "the service answers")
        self._check_isolation()

    def _record(self) -> None:
        tour = self._tour
        tour.text("The next life of the service is recorded, from its first instruction on.")
        self._remove()
        tour.jaula("volume", "rm", self._volume, echo=False)
        self._start(lambda name: ("--record=" + self._records[name],))
        tour.check(self._serves(), "the service answers")
        self._stop()
        for name, path in self._records.items():
            shown = tour.jaula("record", "show", path, show_output=False)
            tour.show(shown.output, limit=60)
            tour.check(shown.status == 0, "the record of {name} is complete", name=name)
            intact = tour.jaula("record", "verify", path)
            tour.check(intact.status == 0, "its hash chain is intact")

    def _harden(self) -> None:
        tour = self._tour
        for name, record in self._records.items():
            made = tour.jaula("harden", name, "--record", record, "-o", self._profiles[name])
            tour.check(made.status == 0, "the profile of {name} is written", name=name)
            text = Path(self._profiles[name]).read_text()
            tour.show(text.partition("[seccomp.syscalls]")[0], limit=40)

    def _run(self) -> None:
        tour = self._tour
        tour.text("The same service, with its profiles: all that they do not name is refused.")
        self._remove()
        self._start(lambda name: ("--profile", self._profiles[name]))
        tour.check(self._serves(), "the service answers as before")
        self._check_isolation()

    def _verify(self) -> None:
        tour = self._tour
        tour.text("Everything that the profile takes away is tried in a twin of the container.")
        proof = tour.jaula(
            "verify", self._web, "--probe", "--profile", self._profiles[self._web],
            show_output=False,
        )  # fmt: skip
        tour.show(proof.output + proof.error, limit=40)
        tour.check(proof.status == 0, "all of it is refused, and what was recorded works")

    def _why(self) -> None:
        tour = self._tour
        tour.text("A command that the recorded life did not have, and the layer that refuses it:")
        explained = tour.jaula("why", self._web, "--", "ls", "/root")
        tour.check("refused by" in explained.output, "the refusal has a layer and a proof")

    def _drift(self) -> None:
        tour = self._tour
        tour.text("A container without a profile, held against its record: a program is new.")
        self._remove()
        self._start()
        self._serves()
        words = ("record", "--drift", self._web, "--baseline", self._records[self._web])
        tour.command("jaula", *words)
        with subprocess.Popen(
            tour.arguments(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as watcher:
            limit = threading.Timer(TIMEOUT, watcher.kill)
            limit.start()
            try:
                _read_until(watcher, "comparing")
                tour.jaula("exec", self._web, "env")
                found = _read_until(watcher, "program")
            finally:
                limit.cancel()
                watcher.terminate()  # SIGINT is ignored in a background job
        tour.show(found, limit=12)
        tour.check("program" in found, "the new program is reported")

    def _audit(self) -> None:
        tour = self._tour
        audited = tour.jaula("audit", "--containers", "--no-history", show_output=False)
        tour.show(audited.output, limit=20)
        tour.check("5.1" in audited.output, "each control has a state and its evidence")
        page = str(tour.scratch / "report.html")
        report = tour.jaula(
            "report", self._web, "--record", self._records[self._web],
            "--profile", self._profiles[self._web], "-o", page,
        )  # fmt: skip
        tour.check(report.status == 0, "record, profile, proof and audit are on one page")

    # -- the service ------------------------------------------------------------------------------

    def _containers(self) -> tuple[str, ...]:
        return (self._database, self._web) if self._database else (self._web,)

    def _image(self, target: str) -> str:
        return self._tour.own_image(f"guestbook-{target}")

    def _build(self, target: str, image: str) -> None:
        words = ("build", "-q", "--target", target, "-t", image, str(CONTEXT))
        if subprocess.run(self._tour.arguments(*words), check=False).returncode:
            raise StepFailed("the image {image} could be built", image=image)

    def _start(self, options: Callable[[str], tuple[str, ...]] = lambda _: ()) -> None:
        """Start the service, each container with ``options`` of its name."""
        for words in self._commands(options):
            if self._tour.jaula(*words).status:
                raise StepFailed("{name} started", name=words[3])

    def _commands(self, options: Callable[[str], tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
        network = ("--network", self._network)
        if self._database:
            yield (
                "run", "-d", "--name", self._database, *network, "-v", f"{self._volume}:/data",
                *options(self._database), self._image("database"),
            )  # fmt: skip
            yield (
                "run", "-d", "--name", self._web, *network, "-e", f"DATABASE={self._database}",
                *options(self._web), self._image("web"),
            )  # fmt: skip
        else:
            serve = f"echo '{ENTRY}' > /data/index.html; exec httpd -f -p 8080 -h /data"
            yield (
                "run", "-d", "--name", self._web, *network, "-v", f"{self._volume}:/data",
                *options(self._web), self._tour.image, "sh", "-c", serve,
            )  # fmt: skip

    def _serves(self) -> bool:
        """Use the service as a client; return whether it answers with the entry."""
        network = f"{{{{(index .NetworkSettings.Networks {self._network!r}).IPAddress}}}}"
        template = network.replace("'", '"')
        address = self._tour.jaula("inspect", "-f", template, self._web, echo=False).output.strip()
        url, until = f"http://{address}:8080/", time.monotonic() + READY
        form = urllib.parse.urlencode({"entry": ENTRY}).encode() if self._database else None
        self._tour.command("curl", *(("-d", form.decode()) if form else ()), url)
        while True:
            try:
                if form:
                    urllib.request.urlopen(url, form, timeout=5).read()
                text = urllib.request.urlopen(url, timeout=5).read().decode()
            except OSError as error:
                if time.monotonic() > until:
                    self._tour.show(str(error))
                    return False
                time.sleep(0.2)
                continue
            self._tour.show(text)
            return ENTRY in text

    def _check_isolation(self) -> None:
        for name in self._containers():
            proof: Result = self._tour.jaula("verify", name, show_output=False)
            self._tour.show(proof.output.rstrip().rpartition("\n")[2])
            self._tour.check(proof.status == 0, "the isolation of {name} holds", name=name)

    def _stop(self) -> None:
        self._tour.jaula("stop", "-t", "5", *reversed(self._containers()), show_output=False)

    def _remove(self) -> None:
        self._tour.jaula("rm", "-f", *self._containers(), echo=False)
