"""The pause of a migration between two engines, and of podman's export and import of a checkpoint.

The parts of jaula's pause are those of its answer: dump, transfer, restore, and the rest until the
processes run. Podman's are the two commands: it has no network between the two steps, and the parts
have the start of the client in them, as for an operator.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import report

from harness import packaged_images
from harness.engine import PrivateEngine
from harness.migration import ADDRESS, IMAGE, NETWORK, Site, Sites, build, sites

SERVER = Path(__file__).resolve().parent.parent / "tests/harness/counter_server.c"
_TITLE = (
    "Medians of {} moves between two engines on this machine, at a load average of {:.0f}."
    " podman: checkpoint --export and restore --import, without a transfer."
)
PARTS = ("dump", "transfer", "restore", "pause")


class Workload(NamedTuple):
    """A container: its image, and its command if that is not the image's."""

    title: str
    image: str
    command: tuple[str, ...] = ()


WORKLOADS = {
    "counter": Workload("counter server", IMAGE, ("/server",)),
    "redis": Workload("Redis", "profiles/redis"),
    "nginx": Workload("nginx", "profiles/nginx"),
    "256": Workload("256 MiB", IMAGE, ("/server", "256")),
    "1024": Workload("1 GiB", IMAGE, ("/server", "1024")),
}
PACKAGED = ("redis", "nginx")

Samples = dict[str, list[float]]  # milliseconds, by part


def main(words: list[str]) -> int:
    """Measure, print a row for each workload, and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="moves there and back (5)")
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads, with commas")
    parser.add_argument("--podman", action="store_true", help="measure podman too")
    parser.add_argument("--images", type=Path, help="directory with redis.tar and nginx.tar")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results")
    options = parser.parse_args(words)
    selected = options.only.split(",")
    results: dict[str, dict[str, Samples]] = {}
    with tempfile.TemporaryDirectory(prefix="jb", dir="/var/tmp") as name:
        base = Path(name)
        archives = options.images or base
        packaged = [key for key in PACKAGED if key in selected]
        if packaged and not options.images:
            build_images(archives, packaged)
        with sites(base, 12) as two:
            for key in packaged:
                two.a.jaula("load", "-q", "-i", str(archives / f"{key}.tar"))
            if options.podman:
                podman_images(base, archives, packaged)
            for key in selected:
                engines: dict[str, Samples] = {"jaula": {part: [] for part in PARTS}}
                if options.podman:
                    engines["podman"] = {part: [] for part in PARTS}
                results[key] = engines
                measure(two, base, WORKLOADS[key], options.rounds, engines)
                print(line(key, engines), flush=True)
    write(options.output, results)
    return 0


def build_images(directory: Path, names: list[str]) -> None:
    """Save images of Debian's packages, built by an engine that reaches a mirror."""
    engine = PrivateEngine(239)
    engine.start()
    try:
        engine.cli("jaula", "image", "bootstrap", "debian", timeout=900).check_returncode()
        for name in names:
            image = packaged_images.build(engine, name)
            path = str(directory / f"{name}.tar")
            engine.cli("jaula", "save", "-o", path, image, timeout=300).check_returncode()
    finally:
        engine.remove_containers()
        engine.stop()
        engine.delete_directories()


def measure(
    two: Sites, base: Path, workload: Workload, rounds: int, engines: dict[str, Samples]
) -> None:
    """Add the samples of all rounds."""
    command = (workload.image, *workload.command)
    two.a.jaula("run", "-d", "--name", "moved", "--network", NETWORK, "--ip", ADDRESS, *command)
    time.sleep(1.0 + (4.0 if "1024" in command else 0))
    try:
        for _ in range(rounds):
            for source, target in ((two.a, two.b), (two.b, two.a)):
                add(engines["jaula"], move(source, target))
            if "podman" in engines:
                try:
                    add(engines["podman"], podman(base, workload))
                except PodmanFailed as error:
                    print(f"bench: {workload.title}: {error}", file=sys.stderr)
                    del engines["podman"]
    finally:
        for site in (two.a, two.b):
            site.engine.cli("jaula", "rm", "-f", "-v", "moved")
            for volume in site.jaula("volume", "ls", "-q").split():
                site.engine.cli("jaula", "volume", "rm", volume)


def add(samples: Samples, sample: dict[str, float]) -> None:
    """Add one move."""
    for part in PARTS:
        samples[part].append(sample[part])


def move(source: Site, target: Site) -> dict[str, float]:
    """Move the container; return the milliseconds of each part."""
    body = {"To": target.target, "Remove": True}
    reply = source.engine.request("POST", "/jaula/containers/moved/migrate", body, timeout=300)
    result = json.loads(reply.body.splitlines()[-1])
    if result.get("Stage") != "done":
        raise SystemExit(f"bench: {result}")
    return {part: result[f"{part.capitalize()}Milliseconds"] for part in PARTS}


# -- podman -----------------------------------------------------------------------------------


class PodmanFailed(Exception):
    """A command of podman has failed."""


def podman_run(base: Path, *words: str) -> str:
    """Run podman with directories of its own."""
    first = ["podman", "--root", str(base / "podman"), "--runroot", str(base / "podman-run")]
    first += ["--tmpdir", str(base / "podman-tmp"), "--cgroup-manager", "cgroupfs"]
    first += ["--runtime", "runc"]  # crun does not run on hybrid cgroups
    done = subprocess.run([*first, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PodmanFailed(f"podman {' '.join(words[:2])}: {done.stderr.splitlines()[-2:]}")
    return done.stdout


def podman_images(base: Path, archives: Path, packaged: list[str]) -> None:
    """Load the same programs into podman."""
    context = base / "podman-context"
    context.mkdir()
    program = build(context, SERVER)
    os.rename(program, context / "server")
    (context / "Containerfile").write_text("FROM scratch\nCOPY server /server\n")
    podman_run(base, "build", "-q", "-t", IMAGE, str(context))
    for key in packaged:
        podman_run(base, "load", "-q", "-i", str(archives / f"{key}.tar"))


def podman(base: Path, workload: Workload) -> dict[str, float]:
    """Checkpoint to an archive, and restore it; return the milliseconds of each part."""
    archive = str(base / "podman.tar")
    image = workload.image if workload.image == IMAGE else f"docker.io/{workload.image}"
    command = (image, *workload.command)
    podman_run(base, "run", "-d", "--name", "moved", "--network", "none", *command)
    time.sleep(1.0 + (4.0 if "1024" in command else 0))
    try:
        begin = time.monotonic()
        podman_run(
            base, "container", "checkpoint", "--export", archive, "--compress", "none", "moved"
        )
        exported = time.monotonic()
        podman_run(base, "rm", "-f", "moved")
        removed = time.monotonic()
        podman_run(base, "container", "restore", "--import", archive)
        end = time.monotonic()
    finally:
        podman_run(base, "rm", "-f", "-t", "0", "moved")
        Path(archive).unlink(missing_ok=True)
    dump, restore = exported - begin, end - removed
    values = {"dump": dump, "transfer": 0.0, "restore": restore, "pause": dump + restore}
    return {part: seconds * 1000 for part, seconds in values.items()}


# -- report -----------------------------------------------------------------------------------


def line(key: str, engines: dict[str, Samples]) -> str:
    """Return the Markdown row of a workload: medians, and the ratio of the pauses."""
    medians = {
        name: {part: statistics.median(samples[part]) for part in PARTS}
        for name, samples in engines.items()
    }
    own = medians["jaula"]
    cells = [WORKLOADS[key].title, *(f"{own[part]:.0f} ms" for part in PARTS)]
    other = medians.get("podman")
    cells += (
        [f"{other['pause']:.0f} ms", f"{other['pause'] / own['pause']:.1f}"] if other else ["", ""]
    )
    return "| " + " | ".join(cells) + " |"


def write(output: Path, results: dict[str, dict[str, Samples]]) -> None:
    """Write live-migration.json and live-migration.md."""
    load = os.getloadavg()[0]
    document = {"machine": report.machine(), "load": load, "results": results}
    output.mkdir(parents=True, exist_ok=True)
    (output / "live-migration.json").write_text(json.dumps(document, indent=1) + "\n")
    count = max(len(samples["pause"]) for each in results.values() for samples in each.values())
    rows = [
        ", ".join(f"{key} {value}" for key, value in report.machine().items()),
        "",
        _TITLE.format(count, load),
        "",
        "| | dump | transfer | restore | pause | podman | podman : jaula |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(line(key, samples) for key, samples in results.items()),
    ]
    (output / "live-migration.md").write_text("\n".join(rows) + "\n")
