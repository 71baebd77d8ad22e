"""Lines of the logs of a pod: complete lines of each stream, in the order of time."""

from __future__ import annotations

from collections.abc import Iterable

from jaula.features.kubernetes.cli.pods import pod_logs
from jaula.spec.stdcopy import frame


def source(prefix: str) -> pod_logs.Source:
    return pod_logs.Source("id", prefix, tty=False)


def test_a_line_that_comes_in_parts_is_one_line() -> None:
    data = frame("stdout", b"a\nb") + frame("stderr", b"x") + frame("stdout", b"c\n")
    chunks = [data[at : at + 3] for at in range(0, len(data), 3)]
    assert list(pod_logs.lines(chunks, tty=False)) == [(1, b"a\n"), (1, b"bc\n"), (2, b"x\n")]
    assert list(pod_logs.lines([b"a", b"b\nc"], tty=True)) == [(1, b"ab\n"), (1, b"c\n")]


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    part = b"x" * (1 << 19)
    sizes = [len(line) for _, line in pod_logs.lines([part] * 4 + [b"\n"], tty=True)]
    assert max(sizes) <= (1 << 20) + len(part)
    assert sum(sizes) == 4 * len(part) + 1


def test_lines_of_containers_are_merged_by_their_times() -> None:
    def log(*rows: bytes) -> Iterable[tuple[int, bytes]]:
        return [(1, row) for row in rows]

    def merged(*, timestamps: bool) -> list[bytes]:
        both = [
            (source("a "), log(b"2026-01-01T00:00:01Z one\n", b"2026-01-01T00:00:03Z three\n")),
            (source("b "), log(b"2026-01-01T00:00:02Z two words\n")),
        ]
        return [line for _, line in pod_logs.merged(both, timestamps=timestamps)]

    assert merged(timestamps=False) == [b"a one\n", b"b two words\n", b"a three\n"]
    assert merged(timestamps=True)[0] == b"a 2026-01-01T00:00:01Z one\n"
