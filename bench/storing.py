"""Times of each engine to load, save and pull an image, and to commit and export a container."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import report
from engines import PROJECT, Engine, wait_for

Samples = dict[str, list[float]]
PORT = 5055
NAME = f"127.0.0.1:{PORT}/bench:1"
TITLES = {
    "load": "`load` of an archive, ms",
    "save": "`save` to a file, ms",
    "pull": "`pull`, ms",
    "again": "`pull` of an existing image, ms",
}
"""Titles of the measures, in the order of the table."""
FILE_TITLES = {
    "commit": "`commit` of a container with {files:,} new files, ms",
    "export": "`export` of it to a file, ms",
}
_MAKE_FILES = """
dir=0
while [ $dir -lt {directories} ]; do
    mkdir -p /files/$dir && cd /files/$dir
    file=0
    while [ $file -lt 100 ]; do echo "$dir $file" >$file; file=$((file + 1)); done
    dir=$((dir + 1))
done
"""
MANIFESTS = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
    )
)


def make_archive(base: Path) -> Path:
    """Build the archive of a Debian image of 120 MB."""
    archive = base / "debian.tar"
    code = "import sys; from jaula.images.bootstrap import build; build(*sys.argv[1:])"
    subprocess.run(
        [PROJECT / ".venv/bin/python", "-c", code, "debian", archive],
        check=True,
        env={"PYTHONPATH": str(PROJECT / "src"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    return archive


def mount_disk(directory: Path) -> Path:
    """Create a private XFS and mount it in this mount namespace."""
    image, base = directory / "disk", directory / "stores"
    base.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 30)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, base], check=True)
    return base


def measure(
    base: Path, engines: Sequence[Engine], archive: Path, rounds: int
) -> dict[str, Samples]:
    """Return milliseconds of each command and engine. The first round is not counted."""
    registry = start_registry(base)
    try:
        image = _names(archive)[0]
        engines[0].run("load", "-i", str(archive), stdout=subprocess.DEVNULL)
        engines[0].run("tag", image, NAME)
        _publish(engines[0])
        samples: dict[str, Samples] = {key: {e.name: [] for e in engines} for key in TITLES}
        for number in range(rounds + 1):
            for engine in engines:
                for key, value in _round(engine, base, archive, image).items():
                    if number:
                        samples[key][engine.name].append(value)
            print(f"round {number} of {rounds}", file=sys.stderr)
        samples["again"]["round trips"] = [_round_trips() for _ in range(rounds)]
        return samples
    finally:
        registry.terminate()
        registry.wait(20)


def _round(engine: Engine, base: Path, archive: Path, image: str) -> dict[str, float]:
    out = base / "saved.tar"
    out.unlink(missing_ok=True)
    _remove_images(engine)
    times = {"load": _timed(lambda: _run(engine, "load", "-i", str(archive)))}
    times["save"] = _timed(lambda: _run(engine, "save", "-o", str(out), image))
    out.unlink()
    _remove_images(engine)
    insecure = ("--tls-verify=false",) if engine.name == "podman" else ()
    times["pull"] = _timed(lambda: _run(engine, "pull", *insecure, NAME))
    times["again"] = _timed(lambda: _run(engine, "pull", *insecure, NAME))
    return times


def measure_files(
    base: Path, engines: Sequence[Engine], archive: Path, rounds: int, files: int
) -> dict[str, Samples]:
    """Return milliseconds to commit and export an exited container that created ``files`` files."""
    image, name, out = _names(archive)[0], "bench-files", base / "exported.tar"
    for engine in engines:
        _run(engine, "load", "-i", str(archive))
        script = _MAKE_FILES.format(directories=files // 100)
        _run(engine, "run", "--name", name, image, "sh", "-c", script)
    samples: dict[str, Samples] = {key: {e.name: [] for e in engines} for key in FILE_TITLES}
    for number in range(rounds):
        for engine in engines:
            subprocess.run(["sync"], check=True)
            value = _timed(lambda engine=engine: _run(engine, "commit", name, "committed:1"))
            samples["commit"][engine.name].append(value)
            _run(engine, "rmi", "-f", "committed:1")
            subprocess.run(["sync"], check=True)
            value = _timed(lambda engine=engine: _run(engine, "export", "-o", str(out), name))
            samples["export"][engine.name].append(value)
            out.unlink()
        print(f"files: round {number + 1} of {rounds}", file=sys.stderr)
    return samples


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def _run(engine: Engine, *words: str) -> None:
    engine.run(*words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _remove_images(engine: Engine) -> None:
    listed = engine.run("images", "-aq", "--no-trunc", capture_output=True, text=True)
    if listed.stdout.split():
        _run(engine, "rmi", "-f", *dict.fromkeys(listed.stdout.split()))


def _publish(engine: Engine) -> None:
    insecure = ("--tls-verify=false",) if engine.name == "podman" else ()
    _run(engine, "push", *insecure, NAME)


def _names(archive: Path) -> list[str]:
    import tarfile

    with tarfile.open(archive) as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        return list(json.load(file)[0]["RepoTags"])


def start_registry(base: Path) -> subprocess.Popen[bytes]:
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(base / "registry")}},
        "http": {"addr": f"127.0.0.1:{PORT}"},
    }
    file = base / "registry.yml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    process = subprocess.Popen(
        ["docker-registry", "serve", str(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(_is_up, "the registry")
    return process


def _is_up() -> bool:
    with suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    return False


def _round_trips() -> float:
    """Return the milliseconds that the registry needs for a pull of an existing image."""

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
        connection.request("GET", "/v2/bench/manifests/1", headers={"Accept": MANIFESTS})
        connection.getresponse().read()

    return _timed(ask)


def table(results: dict[str, Samples], files: int) -> str:
    """Return a table with the median of each engine, and jaula's ratio to docker's and podman's."""
    titles = TITLES | {key: title.format(files=files) for key, title in FILE_TITLES.items()}
    lines = report.ratios(titles, results, "docker", "podman")
    trips = statistics.median(results["again"]["round trips"])
    lines += ["", f"One round trip to the registry: {trips:.1f} ms."]
    return "\n".join(lines) + "\n"
