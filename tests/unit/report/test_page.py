"""The page of a report: complete, self-contained, valid, and safe with hostile names."""

from __future__ import annotations

import datetime
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from jaula.features.audit.benchmark import assessment
from jaula.features.audit.benchmark.catalog import CIS
from jaula.features.audit.benchmark.container_state import ContainerState
from jaula.features.audit.benchmark.control import Kind, Scope
from jaula.features.record.record_document import (
    Container,
    End,
    Entry,
    Header,
    Kernel,
    Program,
    encode_line,
)
from jaula.features.record.record_reader import Record, parse
from jaula.features.report import activity, container_report, page, permission
from jaula.features.report.container_report import ContainerReport, NamedRecord, Standing
from jaula.features.verify.checks import TABLE
from jaula.features.verify.escape.check_info import INFO as PROBE
from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.reports.report import Report
from jaula.spec.confinement_profile import Evidence, Network, Profile, Seccomp
from jaula.state.audit_log import Head, line_hash

HOSTILE = '</style><script src="//x.example">&\u202e\x1b[2J'
IMAGE = "sha256:" + "ab" * 32
VOID = {"meta", "wbr", "br", "link", "img", "input", "hr", "rect", "line"}


def record(*entries: Entry, name: str = "web", image: str = IMAGE) -> Record:
    header = Header(
        version=1,
        time="2026-11-29T03:00:00Z",
        recorder="jaula",
        kernel=Kernel(release="6.18", version="#1", machine="x86_64", boot_id="b"),
        container=Container(id="c" * 64, name=name, image="busybox", image_id=image),
        mechanism="ebpf-tracepoints",
        sources=("sys_exit",),
        cgroup="unified:/x",
    )
    documents: list[Any] = [header, Program(path="/bin/httpd"), Program(path=HOSTILE, name="x")]
    end = End(reason="duration", duration=5_000_000, losses={})
    head, lines = Head(), []
    for document in (*documents, *entries, end):
        line = encode_line(head, document)
        head = Head(head.n + 1, line_hash(line))
        lines.append(line)
    return parse(lines)


def used() -> Record:
    return record(
        Entry(kind="syscall", program=2, syscall="read", count=9),
        Entry(kind="syscall", program=2, syscall="mount", errno="EPERM"),
        Entry(kind="exec", program=2, executed=3, first=1000),
        Entry(kind="file", program=3, path=f"/tmp/{HOSTILE}", mode="write,create"),
        Entry(kind="file", program=2, path="/etc/passwd", mode="read"),
        Entry(kind="file-refused", program=2, path="/etc/shadow", errno="EACCES"),
        Entry(kind="file-refused", program=2, path="/etc/localtime", errno="ENOENT"),
        Entry(kind="connect", program=3, address="2001:db8::1", port=443, protocol="tcp",
              source="kernel"),
        Entry(kind="listen", program=2, address="0.0.0.0", port=80, protocol="tcp"),
        Entry(kind="capability", program=2, capability="CAP_NET_BIND_SERVICE", syscall="bind"),
        Entry(kind="signal", program=2, signal="SIGTERM", receiver="container",
              receiver_program=3),
    )  # fmt: skip


def row(verdict: Verdict = Verdict.HOLDS, layer: str = "", id: str = "row") -> Result:
    info = PROBE if layer == "probes" else TABLE[0].info
    return Result(id, layer or info.layer, "requested", HOSTILE, "/proc/1/status", verdict, info.id)


def outcomes(**members: Any) -> tuple[assessment.Outcome, ...]:
    state = ContainerState(name="web", **members)
    subject = assessment.Subject(Kind.CONTAINER, HOSTILE, state)
    day = datetime.date(2026, 11, 29)
    found = assessment.assess(CIS.controls, (Scope.CONTAINERS,), [subject], (), day)
    return tuple(outcome for outcome in found if outcome.findings)


def report(**members: Any) -> ContainerReport:
    inspect = {
        "Id": "c" * 64,
        "Name": f"/{HOSTILE}",
        "Image": IMAGE,
        "Created": "2026-11-29T03:51:30.606952837Z",
        "State": {"Status": "running"},
        "Config": {"Image": HOSTILE},
    }
    values: dict[str, Any] = {
        "time": "2026-11-29T04:00:00Z", "host": "h", "kernel": "6.18", "inspect": inspect,
        "records": (NamedRecord("web.record", used()),),
        "profile": Profile(
            name="web",
            capabilities=("CHOWN",),
            seccomp=Seccomp(syscalls={"x86_64": ("read", "write")}),
            network=Network(listen=("tcp:80",)),
            evidence={"capabilities": {HOSTILE: Evidence(count=1, programs=(HOSTILE,))}},
        ),
        "proof": Report("web", "container", "2026-11-29T04:00:00Z",
                        (row(), row(layer="probes"), row(layer="probes", id="second"))),
        "outcomes": outcomes(),
    }  # fmt: skip
    return ContainerReport(**(values | members))


class Checker(HTMLParser):
    """Check that elements are closed in order, and collect names, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert not checker.open
    assert len(checker.ids) == len(set(checker.ids))
    return checker


PARTS: dict[str, dict[str, Any]] = {
    "everything": {},
    "no record": {"records": ()},
    "no profile": {"profile": None},
    "no proof": {"proof": None, "missing": {"proof": "the container does not run"}},
    "no audit": {"outcomes": ()},
    "nothing": {"records": (), "profile": None, "proof": None, "outcomes": ()},
    "an empty record": {"records": (NamedRecord("e", record()),)},
    "a broken record": {"records": (NamedRecord("b", parse([b"{}", b"\xff"])),)},
}


@pytest.mark.parametrize("part", PARTS)
def test_the_page_is_valid_whatever_is_missing(part: str) -> None:
    text, _, _ = page.render(report(**PARTS[part]))
    checker = checked(text)
    assert {"did", "may", "proof", "audit"} <= set(checker.ids)
    assert {c for c in text if not c.isprintable()} == {"\n"}


@pytest.mark.parametrize("part", PARTS)
def test_the_page_needs_nothing_else_and_runs_nothing(part: str) -> None:
    text, _, _ = page.render(report(**PARTS[part]))
    checker = checked(text)
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & checker.tags
    for name, value in checker.attributes:
        assert not name.startswith("on"), name
        assert name not in ("src", "srcset", "action", "xlink:href")
        if name == "href":
            assert value is not None
            assert value.startswith("#")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in text


def test_links_of_the_page_lead_somewhere() -> None:
    checker = checked(page.render(report())[0])
    targets = {value[1:] for name, value in checker.attributes if name == "href" and value}
    assert targets <= set(checker.ids)


def test_hostile_names_are_text() -> None:
    text, _, _ = page.render(report())
    checker = checked(text)
    assert '</style><script src="//x.example">&' in checker.text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert text.count("</style>") == 1


def test_the_first_screen_has_the_four_numbers() -> None:
    text, _, _ = page.render(report())
    numbers = re.findall(r'class="number">([^<]*)<small>([^<]*)', text)
    assert [(n.strip(), unit) for n, unit in numbers[:3]] == [
        ("1", "system calls"),
        ("2", "system calls"),
        ("2", "of 2"),
    ]
    assert re.fullmatch(r"of \d+", numbers[3][1])


def test_the_verdict() -> None:
    def standing(**members: Any) -> Standing:
        return container_report.judge(report(**members))[0]

    def proof(*rows: Result) -> Report:
        return Report("web", "container", "t", rows)

    fine: dict[str, Any] = {"outcomes": ()}
    assert standing(**fine, proof=proof(row())) is Standing.HOLDS
    assert standing(**fine, proof=proof(row(), row(Verdict.RELAXED))) is Standing.RELAXED
    assert standing(**fine, proof=proof(row(), row(Verdict.UNKNOWN))) is Standing.UNKNOWN
    assert standing(**fine, proof=proof(row(Verdict.UNKNOWN), row(Verdict.FAILS))) is Standing.FAILS
    assert standing(**fine, proof=None) is Standing.UNKNOWN
    assert standing(proof=proof(row()), outcomes=outcomes(read_only=False)) is Standing.RELAXED
    broken = (NamedRecord("b", parse([b"{}"])),)
    assert standing(**fine, records=broken) is Standing.FAILS
    other = record(image="sha256:" + "00" * 32)
    other = msgspec.structs.replace(
        other,
        header=msgspec.structs.replace(
            other.header, container=msgspec.structs.replace(other.header.container, id="d" * 64)
        ),
    ) if other.header else other  # fmt: skip
    assert standing(**fine, records=(NamedRecord("o", other),)) is Standing.FAILS
    assert container_report.judge(report(**fine, proof=proof(row())), 3)[0] is Standing.RELAXED


def test_use_is_compared_with_permission() -> None:
    summary = activity.summarize([used()])
    calls, capabilities = permission.compare(summary, report().profile, None)
    assert (calls.allowed, calls.used) == ({"read", "write"}, {"read"})
    assert (calls.unused, calls.beyond) == ({"write"}, frozenset())
    assert capabilities.beyond == {"NET_BIND_SERVICE"}
    assert permission.compare(summary, None, None) == ()


def test_activity_is_sorted_by_subject() -> None:
    summary = activity.summarize([used(), used()])
    assert [(i.subject, i.occurrences) for i in summary.syscalls] == [("read", 18)]
    assert [i.subject for i in summary.refused_files] == ["/etc/shadow"]
    assert [i.subject for i in summary.absent_files] == ["/etc/localtime"]
    assert [i.subject for i in summary.destinations] == ["[2001:db8::1]:443"]
    assert [i.subject for i in summary.ports] == ["0.0.0.0:80"]
    assert summary.seconds == 10.0


def test_a_large_record_makes_a_bounded_page() -> None:
    entries = [
        Entry(kind="file", program=2, path=f"/tmp/{number}" + "x" * 4000, mode="write")
        for number in range(3000)
    ]
    text, _, _ = page.render(report(records=(NamedRecord("big", record(*entries)),)))
    assert len(text) < 3_000_000
    checked(text)
