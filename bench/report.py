"""Results of the bench as Markdown tables with ratios, and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping
from pathlib import Path

import confinement
import measures
import runtimes


def machine() -> dict[str, str]:
    """Return the properties of the machine on which the results depend."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "processors": f"{os.cpu_count()} x {model}",
        "cgroup": "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1",
    }


def table(results: dict[str, object]) -> str:
    """Return Markdown tables of the medians of each engine and runtime, with ratios."""
    text = ", ".join(f"{key} {value}" for key, value in machine().items()) + "\n"
    if any(key in results for key in measures.ALL):
        text += "\n" + _engines(results)
    of_runtimes = results.get("runtimes")
    if isinstance(of_runtimes, dict):
        text += "\n" + runtimes.table(of_runtimes)
    of_layers = results.get("confinement")
    if isinstance(of_layers, dict):
        text += "\n" + confinement.table(of_layers)
    return text


def _engines(results: dict[str, object]) -> str:
    others = _with_baseline(results, "docker", "podman")
    lines = _head(*others, "jaula", *(f"{name} : jaula" for name in others))
    for key, title in measures.TITLES.items():
        samples = results.get(key)
        if not isinstance(samples, dict) or key in ("floor", "phases"):
            continue
        medians = {name: statistics.median(values) for name, values in samples.items() if values}
        cells = [_number(medians.get(name)) for name in (*others, "jaula")]
        ratios = [_ratio(medians.get(other), medians.get("jaula"), key) for other in others]
        lines.append(f"| {title} | " + " | ".join(cells + ratios) + " |")
    floor = results.get("floor")
    if isinstance(floor, dict):
        bounds = ", ".join(f"{k} {statistics.median(v):.1f} ms" for k, v in floor.items())
        lines += ["", f"Lower bounds, to start and end one container: {bounds}."]
    phases = results.get("phases")
    if isinstance(phases, dict) and phases:
        lines += ["", "| phase of one `jaula run` | ms |", "| --- | ---: |"]
        lines += [f"| {name} | {statistics.median(v):.1f} |" for name, v in phases.items()]
    return "\n".join(lines) + "\n"


def ratios(
    titles: Mapping[str, str], results: Mapping[str, dict[str, list[float]]], *compared: str
) -> list[str]:
    """Return the lines of a table: each engine's median, and jaula's in ratio to the others'."""
    others = _with_baseline(results, *compared)
    lines = _head(*others, "jaula", *(f"jaula / {name}" for name in others))
    for key, title in titles.items():
        medians = {name: statistics.median(v) for name, v in results[key].items() if v}
        cells = [_short(medians.get(name)) for name in (*others, "jaula")]
        cells += [
            f"{medians['jaula'] / medians[n]:.2f}" if {n, "jaula"} <= set(medians) else ""
            for n in others
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def _head(*columns: str) -> list[str]:
    return [f"| measure | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]


def _with_baseline(results: Mapping[str, object], *others: str) -> tuple[str, ...]:
    """Return the engines that jaula is compared with; ``baseline`` if it was measured."""
    measured = [samples for samples in results.values() if isinstance(samples, dict)]
    return (*others, *(("baseline",) if any("baseline" in row for row in measured) else ()))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _short(value: float | None) -> str:
    """Return a number with at least three digits."""
    if value is None:
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _ratio(other: float | None, own: float | None, key: str) -> str:
    """Return the factor by which jaula is better; below 1 it is worse."""
    if not other or not own:
        return ""
    better = own / other if key in measures.HIGHER_IS_BETTER else other / own
    return f"{better:.2f}" if better < 2 else f"{better:.1f}"


def write(directory: Path, results: dict[str, object], text: str, *, name: str = "latest") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (directory / f"{name}.md").write_text(text)
