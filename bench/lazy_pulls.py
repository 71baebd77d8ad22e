"""Times until a program of an image that is not stored runs, with pull mode whole and lazy."""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness.engine import PrivateEngine
from harness.indexed_layers import IndexedLayer, estargz, push_image, zstd_chunked
from harness.registry import Registry

WRITERS: dict[str, Callable[[bytes], IndexedLayer]] = {
    "estargz": estargz,
    "zstd:chunked": zstd_chunked,
}
MODES = ("whole", "lazy")
_SIZE = 500_000_000  # bytes of the files
_WAIT = 300.0  # seconds
_START = ("sh", "-c", "date +%s.%N")
_READ = ("sh", "-c", "dpkg -l >/dev/null && perl -e 'print 1' >/dev/null && date +%s.%N")

Samples = dict[str, list[float]]


def make_tar(archive: Path) -> bytes:
    """Return a layer of 500 MB: the Debian of ``archive``, and copies of it with other contents."""
    with tarfile.open(archive) as outer:
        file = outer.extractfile("manifest.json")
        assert file is not None
        member = json.load(file)[0]["Layers"][0]
        layer = outer.extractfile(member)
        assert layer is not None
        debian = layer.read()
    out = io.BytesIO()
    size = copy = 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as target:
        while size < _SIZE:
            with tarfile.open(fileobj=io.BytesIO(debian)) as source:
                for entry in source:
                    data = b""
                    if entry.isreg():
                        content = source.extractfile(entry)
                        assert content is not None
                        data = content.read()
                    if copy:
                        if not entry.isreg():
                            continue
                        entry.name = f"srv/{copy}/{entry.name}"
                        data = f"{copy}\n".encode() + data
                        entry.size = len(data)
                        entry.pax_headers = {}
                    target.addfile(entry, io.BytesIO(data))
                    size += len(data)
                    if size >= _SIZE:
                        break
            copy += 1
    return out.getvalue()


def limit(megabytes: int) -> None:
    """Limit the loopback interface of this network namespace."""
    rate = f"{megabytes * 8}mbit"
    words = f"tc qdisc add dev lo root tbf rate {rate} burst 2mb latency 100ms"
    subprocess.run(words.split(), check=True)


def measure(base: Path, archive: Path, formats: Sequence[str], rounds: int) -> dict[str, Samples]:
    """Return the seconds of each measure by ``MODE FORMAT``."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    tar = make_tar(archive)
    samples: dict[str, Samples] = {}
    engines = {
        mode: PrivateEngine(n, base / mode, base / f"{mode}-run")
        for n, mode in enumerate(MODES, 61)
    }
    with Registry(base / "registry") as registry:
        images = {}
        for name in formats:
            layer = WRITERS[name](tar)
            print(f"{name}: blob of {len(layer.blob) / 1e6:.0f} MB", file=sys.stderr)
            images[name] = push_image(registry, name.replace(":", "-"), layer, Cmd=["sh"])
        del tar, layer
        limit(100)
        try:
            for mode, engine in engines.items():
                engine.root.mkdir()
                engine.run.mkdir()
                engine.extra_flags = ("--pull-mode", mode)
                engine.start()
            for number in range(rounds):
                for name, image in images.items():
                    for mode, engine in engines.items():
                        for key, value in _round(engine, image).items():
                            samples.setdefault(key, {}).setdefault(f"{mode} {name}", []).append(
                                value
                            )
                print(f"round {number + 1} of {rounds}", file=sys.stderr)
        finally:
            for engine in engines.values():
                engine.discard()
    return samples


def _round(engine: PrivateEngine, image: str) -> dict[str, float]:
    times = {}
    for key, command in (("start", _START), ("read", _READ)):
        begin = time.time()
        done = engine.cli(
            "jaula", "run", "--rm", "--network", "none", image, *command, timeout=_WAIT
        )
        assert done.returncode == 0, done.stderr
        times[key] = float(done.stdout) - begin
        layers = engine.root / "lib" / "layers"
        while not any(
            (path / "layer.json").exists() for path in layers.iterdir() if len(path.name) == 64
        ):
            assert time.time() - begin < _WAIT, engine.log_tail()
            time.sleep(0.02)
        if key == "start":
            times["whole"] = time.time() - begin
        removed = engine.cli("jaula", "rmi", image)
        assert removed.returncode == 0, removed.stderr
    return times


def _is_whole(engine: PrivateEngine) -> bool:
    layers = engine.root / "lib" / "layers"
    return any((path / "layer.json").exists() for path in layers.iterdir() if len(path.name) == 64)


TITLES = {
    "start": "until a shell of the image runs, s",
    "read": "until `dpkg -l` and perl have run, s",
    "whole": "until the image is stored, s",
}


def table(samples: dict[str, Samples]) -> str:
    """Return the medians as a table of Markdown, with the ratio of lazy to a whole pull."""
    lines = [
        "| measure | format | whole | lazy | lazy / whole |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for key, title in TITLES.items():
        for name in WRITERS:
            pair = [samples[key].get(f"{mode} {name}") for mode in MODES]
            if pair[0] and pair[1]:
                whole, lazy = statistics.median(pair[0]), statistics.median(pair[1])
                lines.append(
                    f"| {title} | {name} | {whole:.2f} | {lazy:.2f} | {lazy / whole:.2f} |"
                )
    return "\n".join(lines) + "\n"
