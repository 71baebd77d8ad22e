"""Parsers of kernel files, exceptions, history and repairs, with hostile content."""

from __future__ import annotations

import datetime
import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import CorruptState, InvalidRequest
from jaula.features.audit.benchmark import (
    container_state,
    engine,
    exceptions,
    file_status,
    fix,
    history,
)
from jaula.features.audit.benchmark.catalog import IDS
from jaula.features.audit.benchmark.container_state import Port, host_path, inside_id, is_sensitive
from jaula.features.audit.benchmark.control import AuditRuleFix, FileFix
from jaula.features.audit.benchmark.history import Entry, History
from jaula.features.audit.benchmark.host import mount_of
from jaula.features.audit.benchmark.images import LayerScan
from jaula.kernel import kernel_audit
from jaula.kernel.mountinfo import MountInfo

TODAY = datetime.date(2026, 6, 1)


def mount(target: str, device: str = "8:1", root: str = "/") -> MountInfo:
    return MountInfo(1, 0, device, root, target, frozenset(), (), "ext4", "/dev/sda1", ())


# -- mounts and ids ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("/", "/"),
        ("/etc", "/etc"),
        ("/home/user/x", "/home/user/x"),
        ("/srv/data", "/data"),
        ("/srv/data/x", "/data/x"),
        ("/srv/database", "/srv/database"),
    ],
)
def test_a_mount_is_a_path_of_the_host(root: str, path: str) -> None:
    host = (mount("/"), mount("/data", root="/srv/data"), mount("/boot", device="8:2"))
    assert host_path(mount("/x", root=root), host) == path


def test_a_mount_of_another_file_system_is_not_of_the_host() -> None:
    assert host_path(mount("/x", device="0:99"), (mount("/"),)) is None
    assert host_path(mount("/x", device="8:2"), (mount("/boot", device="8:2"),)) == "/boot"


def test_the_topmost_mount_of_a_path_counts() -> None:
    mounts = (mount("/"), mount("/var"), mount("/var/lib/jaula"), mount("/var/lib/jaula/x"))
    found = mount_of("/var/lib/jaula", mounts)
    assert found is not None and found.target == "/var/lib/jaula"
    found = mount_of("/var/lib/jaulax", mounts)
    assert found is not None and found.target == "/var"


@pytest.mark.parametrize(
    ("path", "sensitive"),
    [
        ("/", True),
        ("/etc", True),
        ("/etc/ssh", True),
        ("/etc/ssh/key", True),
        ("/etc/ssl", False),
        ("/var/lib/docker/volumes", True),
        ("/home/user", False),
        ("/etcetera", False),
    ],
)
def test_system_directories_and_secrets_are_sensitive(path: str, sensitive: bool) -> None:
    assert is_sensitive(path) is sensitive


def test_an_id_is_mapped_into_the_namespace() -> None:
    text = "         0 1000000      65536\n     65536       5          1\n"
    assert inside_id(1000000, text) == 0
    assert inside_id(1001000, text) == 1000
    assert inside_id(5, text) == 65536
    assert inside_id(0, text) == -1


def test_published_ports_are_those_of_the_address() -> None:
    objects = [
        {"map": {"family": "ip", "name": "published", "elem": [
            [{"concat": ["127.0.0.1", "tcp", 80]}, {"concat": ["10.0.0.2", 8080]}],
            [{"concat": ["127.0.0.1", "tcp", 81]}, {"concat": ["10.0.0.3", 8080]}]]}},
        {"map": {"family": "ip6", "name": "published_everywhere", "elem": [
            [{"elem": {"val": {"concat": ["udp", 53]}, "comment": "x"}},
             {"concat": ["fd00::2", 53]}]]}},
        {"map": {"family": "ip", "name": "other", "elem": [
            [{"concat": ["tcp", 1]}, {"concat": ["10.0.0.2", 1]}]]}},
        {"map": {"family": "ip", "name": "published"}},
        {"set": {"name": "published"}},
    ]  # fmt: skip
    found = container_state.published(objects, ("10.0.0.2", "fd00::2"))
    assert found == (Port("127.0.0.1", 80), Port("::", 53, "udp"))


def test_listening_tcp_sockets_are_parsed() -> None:
    text = (
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:0947 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77 1\n"
        "   1: 0100007F:0948 0100007F:0947 01 00000000:00000000 00:00000000 00000000 0 0 78 1\n"
        "garbage\n"
    )
    assert list(engine.parse_tcp(text)) == [("127.0.0.1", 2375, 77)]
    text = (
        "  sl  local_address rem_address   st\n   0: 00000000000000000000000001000000:0947 "
        "00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 9 1\n"
    )
    assert list(engine.parse_tcp(text)) == [("::1", 2375, 9)]


# -- audit rules ------------------------------------------------------------------------------


def encoded(fields: list[tuple[int, int]], strings: bytes, flags: int = 4) -> bytes:
    numbers = [number for number, _ in fields] + [0] * (64 - len(fields))
    values = [value for _, value in fields] + [0] * (64 - len(fields))
    head = struct.pack("=III64I", flags, 2, len(fields), *([0xFFFFFFFF] * 64))
    return head + struct.pack("=64I64I64II", *numbers, *values, *([0] * 64), len(strings)) + strings


def test_a_rule_has_path_permissions_and_key() -> None:
    fields = [
        (kernel_audit.AUDIT_WATCH, 4),
        (kernel_audit.AUDIT_PERM, 10),
        (kernel_audit.AUDIT_FILTERKEY, 5),
    ]
    body = encoded(fields, b"/etcjaula")
    assert kernel_audit.parse(body) == kernel_audit.AuditRule("/etc", "", 10, "jaula", True)
    body = encoded([(kernel_audit.AUDIT_DIR, 4)], b"/var", flags=1)
    assert kernel_audit.parse(body) == kernel_audit.AuditRule("", "/var", 15, "", False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0" * 100,
        encoded([(kernel_audit.AUDIT_WATCH, 400)], b"/etc"),
        encoded([(kernel_audit.AUDIT_WATCH, 4)], b"/etc")[:-1],
        struct.pack("=III", 4, 2, 65) + encoded([], b"")[12:],
    ],
)
def test_a_malformed_rule_is_an_error(body: bytes) -> None:
    with pytest.raises(OSError, match="audit: "):
        kernel_audit.parse(body)


@given(st.binary(max_size=1200))
def test_no_rule_breaks_the_parser(data: bytes) -> None:
    try:
        kernel_audit.parse(data)
    except OSError:
        return
    assert len(data) >= 1040


# -- exceptions -------------------------------------------------------------------------------

ENTRY = '[[exception]]\nid = "5.13"\nreason = "r"\nuntil = 2026-06-01\n'


def test_an_exception_holds_until_its_day_and_for_its_subject() -> None:
    text = ENTRY + '[[exception]]\nid = "5.13"\nsubject = "db"\nreason = "x"\nuntil = 2020-01-01\n'
    found = exceptions.parse(text.encode(), IDS, "f")
    general = exceptions.select(found, "5.13", "web", TODAY)
    assert general is not None and not general.expired(TODAY)
    assert general.expired(TODAY + datetime.timedelta(days=1))
    one = exceptions.select(found, "5.13", "db", TODAY)
    assert one == general, "one that is in force comes before one that ended"
    assert exceptions.select(found, "5.12", "db", TODAY) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY.replace("5.13", "7.1"), "'7.1', which is not a control"),
        (ENTRY.replace('"r"', '" "'), "has no reason"),
        (ENTRY.replace("2026-06-01", '"soon"'), "until"),
        (ENTRY.replace("reason", "excuse"), "excuse"),
        ('exception = "x"', "exception"),
        ("[[", "exceptions f"),
        ("\ud800", "exceptions f"),
        ("x = " + "[" * 100_000, "exceptions f"),
        ("#" * (exceptions.LIMIT + 1), "more than"),
    ],
)
def test_invalid_exceptions_are_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        exceptions.parse(text.encode("utf-8", "surrogatepass"), IDS, "f")


# -- history ----------------------------------------------------------------------------------


def entry(time: str, **states: str) -> Entry:
    return Entry(time, "e", 1, 2, {key.replace("_", "."): value for key, value in states.items()})


def test_the_history_is_bounded_and_private(tmp_path: Path) -> None:
    kept = History(tmp_path / "audit", "../../etc/x")
    assert kept.path.parent == tmp_path / "audit"
    for number in range(history.KEPT + 3):
        kept.add(entry(str(number)))
    entries = kept.read()
    assert (len(entries), entries[0].time) == (history.KEPT, "3")
    assert kept.path.stat().st_mode & 0o077 == 0
    assert {p.name for p in kept.path.parent.iterdir()} == {kept.path.name,
                                                            f"{kept.path.stem}.lock"}  # fmt: skip


def test_a_damaged_history_is_an_error(tmp_path: Path) -> None:
    kept = History(tmp_path, "e")
    kept.path.write_bytes(b'{"time": 1}\n')
    with pytest.raises(CorruptState, match=r"e\.jsonl"):
        kept.read()


def test_a_difference_has_controls_and_subjects_in_order() -> None:
    before = Entry("1", "e", 1, 2, {"5.9": "pass", "5.10": "fail"}, findings={"5.10 web": "fail"})
    after = Entry("2", "e", 1, 2, {"5.9": "fail", "5.10": "pass"}, findings={"5.9 db x": "fail"})
    rows = [(c.id, c.subject, c.before, c.after) for c in history.diff(before, after)]
    assert rows == [
        ("5.9", "", "pass", "fail"),
        ("5.9", "db x", "", "fail"),
        ("5.10", "", "fail", "pass"),
        ("5.10", "web", "fail", ""),
    ]


def test_the_trend_has_reports_of_the_same_scopes() -> None:
    entries = [
        Entry("1", "e", 1, 9, {}, ("host",)),
        Entry("2", "e", 5, 9, {}, ("host", "engine")),
        Entry("3", "e", 2, 9, {}, ("host",)),
    ]
    assert history.trend(entries) == "1/9, 2/9"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"controls": 1}', '{"controls": [{}]}', "[" * 100_000]
)
def test_a_file_that_is_not_a_report_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(InvalidRequest):
        history.load(str(file))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "/home/u/.local/state/jaula/audit"),
        ({"XDG_STATE_HOME": "/s"}, "/s/jaula/audit"),
        ({"XDG_STATE_HOME": "relative"}, "/home/u/.local/state/jaula/audit"),
    ],
)
def test_the_history_is_in_the_state_directory(environment: dict[str, str], expected: str) -> None:
    assert str(history.directory(environment, "/home/u")) == expected


# -- repairs ----------------------------------------------------------------------------------


def test_a_plan_has_one_change_of_each_file_and_all_rules(tmp_path: Path) -> None:
    fixes: list[Any] = [FileFix("/a b", uid=0), FileFix("/a b", mode=0o600), AuditRuleFix("/x")]
    recorded = [AuditRuleFix("/x"), AuditRuleFix("/run/y", volatile=True), AuditRuleFix("/z")]
    plan = fix.plan(fixes, recorded, str(tmp_path))
    assert plan.files == (FileFix("/a b", uid=0, mode=0o600),)
    assert plan.lines()[0] == "chown 0 '/a b' && chmod 0600 '/a b'"
    lines = plan.rules.splitlines()
    assert lines[1:3] == ["-w /x -p wa -k jaula", "-w /z -p wa -k jaula"]
    assert lines[-2:] == ["-c", "-w /run/y -p wa -k jaula"]
    assert fix.plan(fixes[:2], recorded, str(tmp_path)).rules == "", "no rule fails"


def test_a_path_that_a_rule_cannot_have_is_refused(tmp_path: Path) -> None:
    for path in ("/a b", "/a\n-D", "/é"):
        with pytest.raises(InvalidRequest, match="audit rules cannot have"):
            fix.plan([AuditRuleFix(path)], [AuditRuleFix(path)], str(tmp_path))


def test_a_repair_changes_the_file_and_not_what_a_link_leads_to(tmp_path: Path) -> None:
    file, link, rules = tmp_path / "file", tmp_path / "link", tmp_path / "rules.d/r"
    file.write_text("")
    file.chmod(0o666)
    link.symlink_to(file)
    plan = fix.Plan((FileFix(str(link), mode=0o600), FileFix("/nonexistent/x", mode=0o600)),
                    str(rules), "-w /x -p wa\n")  # fmt: skip
    errors = fix.apply(plan)
    assert errors == [f"{link}: it is a symbolic link", "/nonexistent/x: No such file or directory"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o666
    assert rules.read_text() == "-w /x -p wa\n"
    assert stat.S_IMODE(rules.stat().st_mode) == 0o640
    assert os.listdir(rules.parent) == ["r"]
    assert fix.apply(fix.Plan((FileFix(str(file), mode=0o600),))) == []
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_status_is_that_of_the_file_behind_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("")
    file.chmod(0o640)
    link.symlink_to(file)
    found = file_status.read(str(link))
    assert found is not None and (found.path, found.mode) == (str(file), 0o640)
    assert file_status.read(str(tmp_path / "absent")) is None
    assert file_status.read(str(file / "below")) is None


# -- layers -----------------------------------------------------------------------------------


def test_a_file_that_a_higher_layer_replaces_does_not_count(tmp_path: Path) -> None:
    for layer, names in {"a": ("bin/su", "bin/x", "opt/y"), "b": ("bin/z",)}.items():
        for name in names:
            path = tmp_path / layer / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
            path.chmod(0o4755)
    replaced = tmp_path / "b/fs/bin/x"
    replaced.write_text("")
    (tmp_path / "b/fs/opt").write_text("a file in place of the directory")
    scan = LayerScan(str(tmp_path))
    assert scan.read(scan.trees(["sha256:a", "sha256:b"])) == ("/bin/su", "/bin/z")
    assert scan.read(scan.trees(["sha256:a"])) == ("/bin/su", "/bin/x", "/opt/y")
    assert scan.read(scan.trees(["sha256:a", "sha256:absent"])) is None
