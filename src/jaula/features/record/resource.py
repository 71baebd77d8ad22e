"""Peaks of memory, processes, CPU and I/O of a container, from the files of its cgroup.

Source: cgroup-v2.rst, cgroup-v1/ (memory.rst, blkio-controller.rst), pids.peak of Linux 6.1x. The
kernel keeps the peaks of memory and processes since the cgroup exists. They are those of the record
if they rose while it ran; otherwise the largest sample is. Rates are means of one second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaula.features.record.record_document import UNKNOWN, Entry

WINDOW = 1_000_000_000  # nanoseconds of a rate
UNIFIED = "unified"
_MAX_FILE = 1 << 16  # bytes
_NO_LIMIT = 1 << 62  # v1 writes a number near 2**63 for "no limit"


class Figure(NamedTuple):
    """One number of a cgroup: its file for v2 and for v1, and what it is.

    A gauge rises and falls; a counter only rises. ``peak`` and ``limit`` are files of a gauge.
    ``parse`` returns the number of a file's text.
    """

    resource: str
    unit: str
    unified: str
    controller: str
    legacy: str
    parse: Callable[[str], int | None]
    peak: tuple[str, str] = ("", "")  # v2, v1
    limit: tuple[str, str] = ("", "")
    rate: str = ""  # resource of the rate of a counter
    rate_unit: str = ""
    scale: int = 1  # divisor of the number of v1


def number(text: str) -> int | None:
    """Return the number of a file with one, None for ``max`` and for anything else."""
    word = text.strip()
    return int(word) if word.isdecimal() and len(word) < 20 else None


def field(name: str) -> Callable[[str], int | None]:
    """Return a parser of lines ``NAME NUMBER``."""

    def parse(text: str) -> int | None:
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return number(value)
        return None

    return parse


def io_bytes(word: str, legacy: str) -> Callable[[str], int | None]:
    """Return a parser of the sum over devices: of io.stat (v2) or io_service_bytes (v1)."""

    def parse(text: str) -> int | None:
        total = 0
        for line in text.splitlines():
            words = line.split()
            if len(words) == 3 and words[1] == legacy:
                total += number(words[2]) or 0
            for each in words[1:]:
                key, _, value = each.partition("=")
                if key == word:
                    total += number(value) or 0
        return total

    return parse


FIGURES = (
    Figure("memory", "bytes", "memory.current", "memory", "memory.usage_in_bytes", number,
           ("memory.peak", "memory.max_usage_in_bytes"), ("memory.max", "memory.limit_in_bytes")),
    Figure("pids", "processes", "pids.current", "pids", "pids.current", number,
           ("pids.peak", "pids.peak"), ("pids.max", "pids.max")),
    Figure("cpu-time", "microseconds", "cpu.stat", "cpuacct", "cpuacct.usage",
           lambda text: field("usage_usec")(text) if " " in text else number(text),
           rate="cpu", rate_unit="millicpus", scale=1000),
    Figure("io-read", "bytes", "io.stat", "blkio", "blkio.throttle.io_service_bytes",
           io_bytes("rbytes", "Read"), rate="io-read-rate", rate_unit="bytes/second"),
    Figure("io-write", "bytes", "io.stat", "blkio", "blkio.throttle.io_service_bytes",
           io_bytes("wbytes", "Write"), rate="io-write-rate", rate_unit="bytes/second"),
    Figure("cpu-throttled", "periods", "cpu.stat", "cpu", "cpu.stat", field("nr_throttled")),
    Figure("cpu-throttled-time", "microseconds", "cpu.stat", "cpu", "cpu.stat",
           lambda text: field("throttled_usec")(text) if "throttled_usec" in text
           else (field("throttled_time")(text) or 0) // 1000),
    Figure("memory-refused", "times", "memory.events", "memory", "memory.failcnt",
           lambda text: field("max")(text) if " " in text else number(text)),
    Figure("oom-kills", "processes", "memory.events", "memory", "memory.oom_control",
           field("oom_kill")),
    Figure("pids-refused", "times", "pids.events", "pids", "pids.events", field("max")),
)  # fmt: skip


class Peak(NamedTuple):
    """The peak of a gauge since its cgroup was created, and its limit, None without one."""

    value: int
    limit: int | None


class _Series:
    """Known values of one figure."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.last = 0
        self.largest = 0
        self.first_peak: int | None = None
        self.last_peak: int | None = None
        self.limit: int | None = None
        self.window: tuple[int, int] | None = None  # nanoseconds, number
        self.rate: int | None = None


class ResourceSampler:
    """The figures of one container. ``directories`` are those of its cgroups by controller.

    For v2 the only key is ``unified``. ``new``: the cgroup was created after the record began, so
    its peaks and counters are those of the record.
    """

    def __init__(self, directories: Mapping[str, str], *, new: bool = False) -> None:
        self._directories = dict(directories)
        self._new = new
        self._series = {figure.resource: _Series() for figure in FIGURES}

    def sample(self, now: int) -> None:
        """Read the files; ``now`` is in nanoseconds. A file that does not exist has no entry."""
        texts: dict[str, str | None] = {}
        for figure in FIGURES:
            value = self._read(figure, (figure.unified, figure.legacy), texts, figure.parse)
            if value is None:
                continue
            if figure.scale != 1 and figure.controller in self._directories:
                value //= figure.scale
            series = self._series[figure.resource]
            if series.first is None:
                series.first = 0 if self._new and not figure.peak[0] else value
            series.last = value
            series.largest = max(series.largest, value)
            if figure.peak[0]:
                peak = self._read(figure, figure.peak, texts, number)
                if peak is not None:
                    if series.first_peak is None:
                        series.first_peak = 0 if self._new else peak
                    series.last_peak = peak
                limit = self._read(figure, figure.limit, texts, number)
                series.limit = None if limit is None or limit >= _NO_LIMIT else limit
            if figure.rate:
                _add_rate(series, now, value, figure)

    def add_peaks(self, peaks: Mapping[str, Peak]) -> None:
        """Add the last peaks of the kernel, by resource, when the cgroup was removed."""
        for resource, peak in peaks.items():
            series = self._series[resource]
            if series.first is None:
                series.first, series.limit = 0, peak.limit
            if series.first_peak is None:
                series.first_peak = 0 if self._new else peak.value
            series.last_peak = max(series.last_peak or 0, peak.value)
            series.largest = series.largest or peak.value

    def _read(
        self,
        figure: Figure,
        names: tuple[str, str],
        texts: dict[str, str | None],
        parse: Callable[[str], int | None],
    ) -> int | None:
        if figure.controller in self._directories:
            path = os.path.join(self._directories[figure.controller], names[1])
        elif UNIFIED in self._directories:
            path = os.path.join(self._directories[UNIFIED], names[0])
        else:
            return None
        if path not in texts:
            try:
                with open(path, encoding="ascii", errors="replace") as file:
                    texts[path] = file.read(_MAX_FILE)
            except OSError:  # an older kernel, or the container has exited
                texts[path] = None
        text = texts[path]
        return None if text is None else parse(text)

    def entries(self, first: int, last: int) -> list[Entry]:
        """Return an entry for each figure; the times are microseconds since the record began."""
        result = []
        for figure in FIGURES:
            series = self._series[figure.resource]
            if series.first is None:
                continue
            value, source = series.last - series.first, "kernel"
            if figure.peak[0]:
                value, source = _peak_of(series)
            rows = [(figure.resource, max(0, value), figure.unit, source)]
            if figure.rate and series.rate is not None:
                rows.append((figure.rate, series.rate, figure.rate_unit, "sampled"))
            result += [
                Entry(
                    kind="resource",
                    program=UNKNOWN,
                    first=first,
                    last=last,
                    resource=resource,
                    value=value,
                    limit=series.limit or 0,
                    unit=unit,
                    source=source,
                )
                for resource, value, unit, source in rows
            ]
        return result


def _add_rate(series: _Series, now: int, value: int, figure: Figure) -> None:
    if series.window is None:
        series.window = now, value
        return
    start, before = series.window
    if now - start >= WINDOW:
        scale = 1_000_000 if figure.rate_unit == "millicpus" else 1_000_000_000
        series.rate = max(series.rate or 0, (value - before) * scale // (now - start))
        series.window = now, value


def _peak_of(series: _Series) -> tuple[int, str]:
    """Return the peak of a gauge during the record, and where it is from."""
    first, last = series.first_peak, series.last_peak
    if first is not None and last is not None and last > first:
        return last, "kernel"
    return series.largest, "sampled"
