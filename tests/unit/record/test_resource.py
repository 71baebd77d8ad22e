"""Peaks of a container from the files of its cgroup, in both versions."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from jaula.features.record.record_document import Entry
from jaula.features.record.resource import FIGURES, Peak, ResourceSampler

SECOND = 1_000_000_000


def write(directory: Path, **files: str) -> None:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


def by_name(sampler: ResourceSampler) -> dict[str, Entry]:
    return {entry.resource: entry for entry in sampler.entries(0, 1)}


def test_a_peak_that_rose_is_the_kernels_and_another_is_sampled(tmp_path: Path) -> None:
    write(tmp_path, memory__current="10", memory__peak="100", memory__max="200",
          pids__current="3", pids__peak="9", pids__max="max")  # fmt: skip
    sampler = ResourceSampler({"unified": str(tmp_path)})
    sampler.sample(0)
    write(tmp_path, memory__current="50", memory__peak="150", pids__current="5")
    sampler.sample(SECOND)
    write(tmp_path, memory__current="20", pids__current="1")
    sampler.sample(2 * SECOND)
    memory, pids = by_name(sampler)["memory"], by_name(sampler)["pids"]
    assert (memory.value, memory.limit, memory.source) == (150, 200, "kernel")
    assert (pids.value, pids.limit, pids.source) == (5, 0, "sampled")


def test_a_new_cgroup_has_the_kernels_peak_and_all_of_its_counters(tmp_path: Path) -> None:
    write(tmp_path, memory__current="10", memory__peak="100",
          cpu__stat="usage_usec 7000\nnr_throttled 3\nthrottled_usec 500\n",
          io__stat="8:0 rbytes=5 wbytes=6 rios=1\n8:16 rbytes=10\n")  # fmt: skip
    sampler = ResourceSampler({"unified": str(tmp_path)}, new=True)
    sampler.sample(0)
    found = by_name(sampler)
    assert (found["memory"].value, found["memory"].source) == (100, "kernel")
    assert found["cpu-time"].value == 7000
    assert found["cpu-throttled"].value == 3
    assert found["cpu-throttled-time"].value == 500
    assert (found["io-read"].value, found["io-write"].value) == (15, 6)


def test_the_peaks_of_a_removed_cgroup_replace_older_ones(tmp_path: Path) -> None:
    write(tmp_path, memory__current="10", memory__peak="100", memory__max="200",
          pids__current="3", pids__peak="9", pids__max="max")  # fmt: skip
    sampler = ResourceSampler({"unified": str(tmp_path)})
    sampler.sample(0)
    sampler.add_peaks({"memory": Peak(170, None), "pids": Peak(9, 20)})
    memory, pids = by_name(sampler)["memory"], by_name(sampler)["pids"]
    assert (memory.value, memory.limit, memory.source) == (170, 200, "kernel")
    assert (pids.value, pids.limit, pids.source) == (3, 0, "sampled")


def test_a_cgroup_that_was_never_sampled_has_its_peaks() -> None:
    sampler = ResourceSampler({}, new=True)
    sampler.add_peaks({"memory": Peak(170, 200), "pids": Peak(2, None)})
    found = by_name(sampler)
    assert found.keys() == {"memory", "pids"}
    assert (found["memory"].value, found["memory"].limit) == (170, 200)
    assert (found["pids"].value, found["pids"].limit, found["pids"].source) == (2, 0, "kernel")


def test_counters_are_differences_and_rates_are_means_of_a_second(tmp_path: Path) -> None:
    sampler = ResourceSampler({"cpuacct": str(tmp_path), "memory": str(tmp_path)})
    for n, usage in enumerate((1_000_000_000, 1_500_000_000, 1_600_000_000)):
        write(tmp_path, cpuacct__usage=str(usage), memory__oom_control=f"oom_kill {n}\n")
        sampler.sample(n * SECOND)
    found = by_name(sampler)
    assert found["cpu-time"].value == 600_000
    assert found["cpu"].value == 500
    assert found["oom-kills"].value == 2
    assert "pids" not in found


@given(st.text(max_size=60))
def test_every_text_of_a_file_has_a_number_or_none(text: str) -> None:
    for figure in FIGURES:
        value = figure.parse(text)
        assert value is None or value >= 0
