"""Checkpoint and restore of one program with several engines (``bench/migration``)."""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import engines
import report

PROGRAM = """
import os, struct, sys, time
memory = [os.urandom(1 << 20) for _ in range(int(sys.argv[1]))]
with open("/beats/beats", "ab", buffering=0) as file:
    while True:
        file.write(struct.pack("q", time.time_ns()))
        time.sleep(0.005)
"""
NAME = "moved"
BEATS = 40  # beats before a dump and after a restore
PATIENCE = 60.0  # seconds
ATTEMPTS = 3  # of a round
TITLES = {"dump": "dump (ms)", "restore": "restore (ms)", "pause": "pause of the program (ms)",
          "size": "images (MiB)"}  # fmt: skip


class CommandFailed(RuntimeError):
    """A command of an engine that has failed."""


class Docker(engines.Docker):
    """Docker with its experimental commands.

    The program's times are those of the real-time clock: a restore lets the monotonic one go on
    where it was.
    """

    def start(self) -> None:
        """Start dockerd with a configuration file for what no flag says."""
        configuration = self.base / "daemon.json"
        configuration.write_text('{"experimental": true}')
        super().start()

    def spawn(self, words: list[str]) -> None:
        super().spawn([*words, "--config-file", str(self.base / "daemon.json")])

    def stop(self) -> None:
        """Stop dockerd, and remove the mount of its directory if it is left."""
        super().stop()
        subprocess.run(["umount", str(self.base / "lib")], stderr=subprocess.DEVNULL, check=False)


class Commands(NamedTuple):
    """The words with which an engine dumps and restores, and where its images are."""

    dump: tuple[str, ...]
    restore: tuple[str, ...]
    images: Callable[[Path], list[Path]]


COMMANDS = {
    "docker": Commands(
        ("checkpoint", "create", NAME, "one"),
        ("start", "--checkpoint", "one", NAME),
        lambda base: list((base / "lib/containers").glob("*/checkpoints/one")),
    ),
    "podman": Commands(
        ("container", "checkpoint", "--keep", NAME),
        ("container", "restore", "--keep", NAME),
        lambda base: list((base / "lib").glob("overlay-containers/*/userdata/checkpoint")),
    ),
    "jaula": Commands(
        ("checkpoint", "create", NAME, "one"),
        ("start", "--checkpoint", "one", NAME),
        lambda base: list((base / "lib/checkpoints").glob("*/one")),
    ),
}
KINDS: dict[str, type[engines.Engine]] = engines.KINDS | {"docker": Docker}


class Round(NamedTuple):
    """The result of a dump and a restore, in the units of ``TITLES``."""

    dump: float
    restore: float
    pause: float
    size: float


def main(words: list[str]) -> int:
    """Run the rounds and write the results."""
    parser = argparse.ArgumentParser(description="Measure checkpoint and restore.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each engine (5)")
    parser.add_argument("--engines", default="docker,podman,jaula")
    parser.add_argument("--sizes", default="0,256", help="MiB of memory (0,256)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(words)
    results: dict[str, dict[str, list[Round]]] = {}
    with tempfile.TemporaryDirectory(prefix="jb", dir="/var/tmp") as directory:
        base = Path(directory)
        archive = make_archive(base)
        made = [KINDS[name](base / name) for name in options.engines.split(",")]
        try:
            for engine in made:
                engine.start()
                engine.import_image(archive)
            for size in options.sizes.split(","):
                samples: dict[str, list[Round]] = {engine.name: [] for engine in made}
                for number in range(options.rounds):
                    for engine in made if number % 2 else reversed(made):
                        samples[engine.name].append(repeated(engine, base, size))
                        print(size, engine.name, samples[engine.name][-1], flush=True)
                results[size] = samples
            write(options.output, results)
        finally:
            for engine in made:
                engine.stop()
    return 0


def make_archive(base: Path) -> Path:
    """Return a root with links into the host's /usr, which each container gets as a bind mount."""
    rootfs = engines.make_rootfs(base)
    for name in ("lib", "lib64"):
        (rootfs.directory / name).symlink_to(f"usr/{name}")
    for name in ("usr", "beats"):
        (rootfs.directory / name).mkdir()
    subprocess.run(["tar", "-C", rootfs.directory, "-cf", rootfs.archive, "."], check=True)
    return rootfs.archive


def repeated(engine: engines.Engine, base: Path, size: str) -> Round:
    """Run a round; again if a command fails, as docker's restore does now and then."""
    for _ in range(ATTEMPTS - 1):
        try:
            return once(engine, base, size)
        except CommandFailed as error:
            print(f"failed: {error}", flush=True)
    return once(engine, base, size)


def once(engine: engines.Engine, base: Path, size: str) -> Round:
    """Run the program, dump it and restore it."""
    beats = base / "beats"
    beats.mkdir(mode=0o777, exist_ok=True)
    beats.chmod(0o777)
    (beats / "beats").unlink(missing_ok=True)
    usr = ("--mount", "type=bind,src=/usr,dst=/usr,readonly")
    run = ("run", "-d", "--name", NAME, "--network", "none", *usr, "-v", f"{beats}:/beats")
    words = (engines.IMAGE, "python3", "-c", PROGRAM, size)
    commands = COMMANDS[engine.name]
    engine.run(*run, *words, stdout=subprocess.DEVNULL)
    try:
        wait_for_beats(beats / "beats", BEATS)
        before = time.time_ns()
        dump = timed(engine, commands.dump)
        wait_for_exit(engine)
        found = commands.images(engine.base)
        bytes_of_images = sum(each.stat().st_size for path in found for each in path.rglob("*"))
        restore = timed(engine, commands.restore)
        wait_for_beats(beats / "beats", BEATS, since=time.time_ns())
        times = [each for each in read(beats / "beats") if each > before - 10**8]
        pause = max(after - first for first, after in itertools.pairwise(times))
    finally:
        engine.remove(NAME)
    return Round(dump, restore, pause / 1e6, bytes_of_images / (1 << 20))


def timed(engine: engines.Engine, words: tuple[str, ...]) -> float:
    """Return the milliseconds of a command."""
    begin = time.perf_counter()
    done = engine.run(*words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise CommandFailed(f"{engine.name} {' '.join(words)}: {done.stderr[-1500:]}")
    return (time.perf_counter() - begin) * 1e3


def wait_for_exit(engine: engines.Engine) -> None:
    """Wait until the engine says that the container does not run."""
    form = ("inspect", "--format", "{{.State.Running}}", NAME)
    engines.wait_for(
        lambda: engine.run(*form, capture_output=True, text=True).stdout.strip() == "false",
        "the end of the container",
    )


def wait_for_beats(path: Path, count: int, since: int = 0) -> None:
    """Wait until the program has written so many times after one."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or sum(each > since for each in read(path)[-count:]) < count:
        if time.monotonic() > deadline:
            raise SystemExit("bench: the program does not run")
        time.sleep(0.02)


def read(path: Path) -> list[int]:
    """Return the times of a file, in nanoseconds."""
    data = path.read_bytes()
    return [value for (value,) in struct.iter_unpack("q", data[: len(data) // 8 * 8])]


def write(output: Path, results: dict[str, dict[str, list[Round]]]) -> None:
    """Write migration.json and migration.md."""
    document = {
        "machine": report.machine(),
        "results": {
            size: {name: [each._asdict() for each in rounds] for name, rounds in samples.items()}
            for size, samples in results.items()
        },
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "migration.json").write_text(json.dumps(document, indent=1) + "\n")
    rows = [", ".join(f"{key} {value}" for key, value in report.machine().items()), ""]
    for size, samples in results.items():
        rows += table(size, samples)
    (output / "migration.md").write_text("\n".join(rows))


def table(size: str, samples: dict[str, list[Round]]) -> list[str]:
    """Return the table of one size of memory: medians, and ratios to jaula."""
    names = list(samples)
    others = [name for name in names if name != "jaula" and "jaula" in names]
    heads = [*names, *(f"{name} : jaula" for name in others)]
    rounds = max(len(each) for each in samples.values())
    rows = [
        f"{size} MiB of memory, medians of {rounds} rounds:",
        "",
        f"| | {' | '.join(heads)} |",
        f"| --- | {' | '.join('---:' for _ in heads)} |",
    ]
    for field, title in TITLES.items():
        medians = {
            name: statistics.median(getattr(each, field) for each in samples[name])
            for name in names
        }
        cells = [f"{medians[name]:.1f}" for name in names]
        cells += [f"{medians[name] / medians['jaula']:.2f}" for name in others]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return [*rows, ""]
