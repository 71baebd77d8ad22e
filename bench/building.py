"""Build times of a Dockerfile of ten steps, with and without the cache of each builder.

The Dockerfile is typical: variables, a working directory, dependencies before the source, four
programs that run, a user, a command. It uses no network, so that the builder is measured and not a
mirror.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import report
from engines import IMAGE, Engine, Jaula, Podman

Samples = dict[str, list[float]]
TITLES = {
    "whole": "build of ten steps, nothing cached, ms",
    "cached": "the same, all cached, ms",
    "changed": "the same, one source file changed, ms",
}
"""Titles of the measures, in the order of the table."""
TAG = "bench-built:1"

DOCKERFILE = f"""\
FROM {IMAGE}
ENV APP=/app LANG=C.UTF-8
WORKDIR /app
COPY requirements.txt .
RUN mkdir -p /opt/lib && for i in 1 2 3 4 5; do cp requirements.txt /opt/lib/$i; done
COPY src/ src/
RUN cat src/* | md5sum > digest
RUN echo 'worker:x:1000:1000::/app:/bin/sh' >> /etc/passwd
RUN chown -R 1000:1000 /app
USER 1000
CMD ["sh", "-c", "cat digest"]
"""


class DockerOnJaula(Jaula):
    """jaula, with docker's command as the client."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"DOCKER_CONFIG": str(self.base)}

    def words(self, *words: str) -> list[str]:
        return ["docker", "-H", f"unix://{self.socket}", *words]


class Buildah(Podman):
    """buildah with runc, with a private store of podman.

    It requests more open files and processes than some hosts permit. So ``start`` writes the
    limits of the host into its configuration.
    """

    name = "buildah"

    def start(self) -> None:
        limits = (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
        words = [f"{name}={hard}:{hard}" for name, hard in _hard(limits)]
        self._settings.write_text(f"[containers]\ndefault_ulimits = {json.dumps(words)}\n")

    @property
    def _settings(self) -> Path:
        return self.base / "containers.conf"

    def environment(self) -> dict[str, str]:
        return super().environment() | {"CONTAINERS_CONF_OVERRIDE": str(self._settings)}

    def words(self, *words: str) -> list[str]:
        if words[0] in ("build", "rmi"):
            return [
                "buildah",
                *("--root", str(self.base / "lib"), "--runroot", str(self.base / "run")),
                *words[:1],
                *(("--runtime", "runc") if words[0] == "build" else ()),
                *words[1:],
            ]
        return super().words(*words)


def _hard(limits: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    for name, which in limits:
        hard = resource.getrlimit(which)[1]
        if hard != resource.RLIM_INFINITY:
            yield name, hard


def make_context(base: Path, files: int = 40) -> Path:
    """Create a context with the Dockerfile and a source tree of some 160 kB, always the same."""
    context = base / "context"
    (context / "src").mkdir(parents=True)
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "requirements.txt").write_text("one==1\ntwo==2\n")
    for number in range(files):
        lines = (hashlib.sha256(f"{number}:{n}".encode()).hexdigest() for n in range(64))
        (context / "src" / f"module{number}.py").write_text("\n".join(lines) + "\n")
    return context


def measure(engines: Sequence[Engine], context: Path, rounds: int) -> dict[str, Samples]:
    """Return milliseconds of each build and builder. The first round is not counted."""
    samples: dict[str, Samples] = {key: {e.name: [] for e in engines} for key in TITLES}
    for number in range(rounds + 1):
        for engine in engines:
            for key, value in _round(engine, context, number).items():
                if number:
                    samples[key][engine.name].append(value)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return samples


def _round(engine: Engine, context: Path, number: int) -> dict[str, float]:
    source = context / "src" / "module0.py"
    before = source.read_text()
    times = {"whole": _timed(lambda: _build(engine, context, "--no-cache"))}
    _build(engine, context)  # buildah does not use the layers of a --no-cache build
    times["cached"] = _timed(lambda: _build(engine, context))
    try:
        source.write_text(f"{before}{engine.name} {number}\n")
        times["changed"] = _timed(lambda: _build(engine, context))
    finally:
        source.write_text(before)
    return times


def _build(engine: Engine, context: Path, *words: str) -> None:
    layers = ("--layers",) if isinstance(engine, Buildah) and "--no-cache" not in words else ()
    quiet = ("--quiet",) if isinstance(engine, Buildah) else ("-q",)
    engine.run(
        *("build", *quiet, *layers, *words, "-t", TAG, str(context)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def table(results: dict[str, Samples], *compared: str) -> str:
    """Return a table with the median of each builder, and the ratio of jaula's to the others'."""
    return "\n".join(report.ratios(TITLES, results, *compared)) + "\n"
