"""Tables in the recorder have the limits of the kernel's."""

from __future__ import annotations

from jaula.features.record import ebpf_events, tables
from jaula.features.record.ebpf_events import Event, Key
from jaula.features.record.tables import Tables, components


def test_a_key_is_sent_once_and_counted() -> None:
    events: list[Event] = []
    made = Tables(events.append)
    program = made.program(b"/bin/ls", b"./ls")
    for _ in range(3):
        made.text(ebpf_events.FILE_OPEN, program, components(b"/tmp/x"), 2)
    assert [event.key.kind for event in events] == [ebpf_events.PROGRAM, ebpf_events.FILE_OPEN]
    assert ebpf_events.program(events[0].key, events[0].text).path == "/bin/ls"
    counts = {key.kind: counts.occurrences for key, counts in made.counts()}
    assert counts[ebpf_events.FILE_OPEN] == 3
    assert made.losses() == {}


def test_a_full_table_counts_what_it_lacks() -> None:
    made = Tables(lambda event: None)
    limit = tables._LIMITS["mounts"]
    for number in range(limit + 5):
        made.text(ebpf_events.MOUNT, 2, b"%d\0\0" % number)
    made.count(Key(2, 1, ebpf_events.SYSCALL, 0))
    assert made.losses() == {ebpf_events.MOUNT: (5, 0, 0)}


def test_a_long_text_is_lost_and_counted() -> None:
    made = Tables(lambda event: None)
    made.text(ebpf_events.FILE_OPEN, 2, b"x" * 5000)
    assert made.losses() == {ebpf_events.FILE_OPEN: (0, 0, 1)}


def test_programs_beyond_the_limit_are_unlisted() -> None:
    made = Tables(lambda event: None)
    for number in range(tables._LIMITS["programs"]):
        assert made.program(b"/%d" % number) > ebpf_events.UNLISTED_PROGRAM
    assert made.program(b"/one-more") == ebpf_events.UNLISTED_PROGRAM
    assert made.program(b"/0") > ebpf_events.UNLISTED_PROGRAM


def test_components_are_reversed() -> None:
    assert components(b"/usr//bin/x") == b"x\0bin\0usr\0"
    assert ebpf_events.path_of(components(b"/usr/bin/x")) == b"/usr/bin/x"
    assert ebpf_events.path_of(components(b"/")) == b"/"
