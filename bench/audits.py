"""Time of ``jaula audit`` and ``jaula image audit`` on many images and containers.

The images are built from busybox: each has a layer of its own with files, of which some have
set-user-ID. ``--debian FILE`` is an archive of another image that is audited alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import engines
import report
from engines import IMAGE, Engine

HERE = Path(__file__).resolve().parent
FILES = 200  # in the layer of each image
AUDITS = {
    "audit": ("audit", "--no-history"),
    "audit --profile jaula": ("audit", "--profile", "jaula", "--no-history"),
    "audit --containers": ("audit", "--containers", "--no-history"),
    "image audit": ("image", "audit"),
}


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/audit")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--archive", type=Path, help="image that is loaded and audited alone")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "audit.json")
    options = parser.parse_args(words)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    audits = dict(AUDITS)
    with tempfile.TemporaryDirectory(prefix="jb", dir="/var/tmp") as name:
        base = Path(name)
        engine = engines.KINDS["jaula"](base / "jaula")
        try:
            engine.start()
            engine.import_image(engines.make_rootfs(base).archive)
            build(engine, base, options.images - 1)
            for number in range(options.containers):
                container = ("--name", f"c{number}", f"image{number % (options.images - 1)}")
                engine.run("run", "-d", *container, "sleep", "100000", stdout=subprocess.DEVNULL)
            if options.archive:
                engine.run("load", "-i", str(options.archive), stdout=subprocess.DEVNULL)
                audits[f"image audit {options.archive.stem}"] = (
                    "image", "audit", options.archive.stem,
                )  # fmt: skip
            seconds = {title: measure(engine, words, options.rounds)
                       for title, words in audits.items()}  # fmt: skip
        finally:
            engine.stop()
    print(f"{options.images} images, {options.containers} containers; median of {options.rounds}")
    for title, each in seconds.items():
        print(f"{title:28} {statistics.median(each):.2f} s")
    document = {"machine": report.machine(), "images": options.images,
                "containers": options.containers, "seconds": seconds}  # fmt: skip
    options.output.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def build(engine: Engine, base: Path, images: int) -> None:
    """Build images with a layer of their own."""
    for number in range(images):
        context = base / f"context{number}"
        tree = context / "tree/srv"
        tree.mkdir(parents=True)
        for file in range(FILES):
            (tree / f"{file}.conf").write_text(f"image={number}\nfile={file}\n" * 50)
            (tree / f"{file}.conf").chmod(0o4755 if file % 50 == 0 else 0o644)
        (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY tree/ /\nUSER 1000\n")
        engine.run("build", "-q", "-t", f"image{number}", str(context), stdout=subprocess.DEVNULL)


def measure(engine: Engine, words: Sequence[str], rounds: int) -> list[float]:
    """Return the seconds of each run of a command of jaula."""
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        done = engine.run(*words, check=False, capture_output=True)
        seconds.append(round(time.perf_counter() - begin, 3))
        if done.returncode not in (0, 1) or not done.stdout:
            raise SystemExit(f"bench: {words}: {done.stderr.decode()}")
        print(f"{' '.join(words)}: {seconds[-1]:.2f} s", file=sys.stderr)
    return seconds
