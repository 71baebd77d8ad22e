"""Exported events have the attributes that the schema of OCSF requires, and no unknown ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.features.record import record_formats
from jaula.features.record.record_document import Container, Entry, Header, Kernel, Kind, Program
from jaula.features.record.record_reader import Record
from jaula.state.audit_log import Head

# Attributes of the schema, versions 1.2 to 1.8: those of every event, of each class, of objects.
BASE = {
    "activity_id",
    "activity_name",
    "category_name",
    "category_uid",
    "class_name",
    "class_uid",
    "count",
    "duration",
    "end_time",
    "enrichments",
    "message",
    "metadata",
    "observables",
    "raw_data",
    "severity",
    "severity_id",
    "start_time",
    "status",
    "status_code",
    "status_detail",
    "status_id",
    "time",
    "timezone_offset",
    "type_name",
    "type_uid",
    "unmapped",
    "actor",
    "device",
    "container",
    "namespace_pid",
}
REQUIRED = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time"} | {
    "type_uid"
}
CLASSES: dict[int, tuple[set[str], set[str], set[int]]] = {  # required, optional, activities
    0: (set(), set(), {0, 99}),
    1001: ({"file", "actor", "device"}, {"file_result"}, {*range(15), 99}),
    1003: ({"kernel", "actor", "device"}, set(), {0, 1, 2, 3, 4, 99}),
    1007: ({"process", "actor", "device"}, {"exit_code"}, {0, 1, 2, 3, 4, 5, 99}),
    4001: (set(), {"src_endpoint", "dst_endpoint", "connection_info"}, {*range(8), 99}),
    4003: (set(), {"src_endpoint", "dst_endpoint", "query"}, {0, 1, 2, 6, 99}),
}
OBJECTS: dict[str, tuple[set[str], set[str]]] = {  # required, optional
    "metadata": ({"product", "version"}, {"profiles", "uid", "log_name", "sequence"}),
    "product": ({"vendor_name"}, {"name", "version"}),
    "process": ({"uid"}, {"name", "file", "pid"}),
    "file": ({"name", "type_id"}, {"path"}),
    "kernel": ({"name", "type_id"}, {"type", "system_call", "path"}),
    "device": ({"type_id", "uid"}, {"os", "hostname"}),
    "os": ({"name", "type_id"}, {"version"}),
    "container": ({"uid"}, {"name", "image"}),
    "image": ({"uid"}, {"name"}),
    "query": ({"hostname"}, {"type", "class"}),
    "connection_info": ({"direction_id"}, {"protocol_name", "protocol_num"}),
    "src_endpoint": (set(), {"ip", "port", "name", "uid"}),
    "dst_endpoint": (set(), {"ip", "port", "name", "uid"}),
    "actor": ({"process"}, set()),
}


def record(*entries: Entry, time: str = "2026-01-02T03:04:05.000000Z") -> Record:
    header = Header(
        version=1, time=time, recorder="jaula 1.0", mechanism="ebpf-tracepoints", sources=(),
        kernel=Kernel(release="6.18", version="#1", machine="x86_64", boot_id="b"),
        container=Container(id="c" * 64, name="web", image="redis", image_id="sha256:1"),
        cgroup="pids:/c",
    )  # fmt: skip
    programs = {2: Program(path="/bin/sh")}
    return Record(header, programs, dict(enumerate(entries, 3)), None, Head(9, "h" * 64), [])


def check(event: dict[str, Any]) -> None:
    required, optional, activities = CLASSES[event["class_uid"]]
    assert set(event) >= REQUIRED | required
    assert set(event) <= BASE | required | optional
    assert event["activity_id"] in activities
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["category_uid"] == event["class_uid"] // 1000
    if event["class_uid"] >= 4000:
        assert "src_endpoint" in event or "dst_endpoint" in event
    check_objects(event)


def check_objects(document: dict[str, Any]) -> None:
    for name, value in document.items():
        if isinstance(value, dict) and name != "unmapped":
            required, optional = OBJECTS[name]
            assert set(value) >= required, (name, value)
            assert set(value) <= required | optional, (name, value)
            if name.endswith("_endpoint"):
                assert {"ip", "name", "uid"} & set(value)
            check_objects(value)


KINDS = msgspec.inspect.type_info(Kind).values  # type: ignore[attr-defined]
TEXT = st.text(max_size=20)


@given(
    st.sampled_from(KINDS), st.sampled_from([0, -1, 2]), TEXT, TEXT,
    st.sampled_from(["inet", "inet6", "unix", "", "99"]), st.integers(0, (1 << 63) - 1),
    st.sampled_from(["", "EPERM"]), st.sampled_from(["read", "write,create", "path", ""]),
)  # fmt: skip
def test_every_entry_is_an_event_of_the_schema(
    kind: Kind, program: int, path: str, name: str, family: str, first: int, error: str, mode: str
) -> None:
    entry = Entry(
        kind=kind, program=program, path=path, name=name, address=path, family=family, mode=mode,
        errno=error, first=first, executed=program, receiver_program=program, port=80,
    )  # fmt: skip
    (event,) = record_formats.ocsf(record(entry))
    check(event)
    msgspec.json.encode(event)
    (line,) = record_formats.json_lines(record(entry))
    assert line["kind"] == kind


def test_entries_have_their_class_and_time() -> None:
    events = list(
        record_formats.ocsf(
            record(
                Entry(kind="exec", program=0, executed=2, first=1_500, last=2_500_000, count=7),
                Entry(kind="accept", program=2, family="inet", address="10.0.0.2", port=6379,
                      protocol="tcp"),
                Entry(kind="dns", program=2, name="db.test", query_type="A"),
                Entry(kind="file-refused", program=2, path="/etc/shadow", errno="EACCES",
                      layer="capability"),
            )
        )
    )  # fmt: skip
    assert [event["type_uid"] for event in events] == [100701, 400101, 400301, 100114]
    launch, accept, dns, refused = events
    assert launch["time"] == 1767323045001
    assert (launch["end_time"], launch["count"]) == (1767323047500, 7)
    assert launch["process"]["file"]["path"] == "/bin/sh"
    assert accept["src_endpoint"] == {"ip": "10.0.0.2"}
    assert accept["dst_endpoint"]["port"] == 6379
    assert dns["query"] == {"hostname": "db.test", "type": "A", "class": "IN"}
    assert (refused["status_id"], refused["status_code"]) == (2, "EACCES")
    assert refused["status_detail"] == "refused by capability"


@pytest.mark.parametrize("time", ["", "yesterday", "2026-01-02T03:04:05", "99999-01-01T00:00:00Z"])
def test_a_header_without_a_time_is_an_error(time: str) -> None:
    with pytest.raises(ValueError, match=r"time|isoformat"):
        list(record_formats.json_lines(record(Entry(kind="exec", program=0), time=time)))
