"""Seals are read from the audit log, and its chain is verified."""

from __future__ import annotations

from pathlib import Path

from jaula.features.verify.model import seals
from jaula.state import audit_log
from jaula.state.audit_log import AuditEntry, AuditLog


def write(directory: Path, *entries: tuple[str, str, str], max_file: int = 1 << 20) -> None:
    log = AuditLog(directory, max_file=max_file)
    for container, seal, spec_seal in entries:
        entry = AuditEntry(action="x", object=container, seal=seal, spec_seal=spec_seal)
        log.append(entry)
    log.close()


def test_the_last_seal_of_each_container_is_its_own(tmp_path: Path) -> None:
    write(tmp_path, ("a", "1", ""), ("b", "2", ""), ("a", "3", ""), ("c", "", ""))
    log = seals.read(tmp_path)
    assert log.requests == {"a": "3", "b": "2"}
    assert log.specs == {}
    assert log.error == ""


def test_seals_of_specs_are_apart_from_those_of_requests(tmp_path: Path) -> None:
    write(tmp_path, ("a", "1", ""), ("a", "", "5"), ("a", "", "6"), ("a", "2", ""))
    log = seals.read(tmp_path)
    assert (log.requests, log.specs) == ({"a": "2"}, {"a": "6"})


def test_seals_are_read_from_all_files_that_are_kept(tmp_path: Path) -> None:
    write(tmp_path, ("a", "1", "2"), *[("b", "", str(n)) for n in range(20)], max_file=512)
    assert len(audit_log.files(tmp_path)) > 3
    log = seals.read(tmp_path)
    assert (log.requests, log.specs, log.error) == ({"a": "1"}, {"a": "2", "b": "19"}, "")


def test_a_name_that_looks_like_a_seal_is_none(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.append(AuditEntry(action="x", object='"spec_seal":"1"', name='a","seal":"1'))
    log.close()
    assert seals.read(tmp_path) == seals.Seals({}, {}, "")


def test_a_line_that_is_no_json_is_an_error_of_the_log(tmp_path: Path) -> None:
    write(tmp_path, ("a", "1", "2"), ("b", "3", "4"))
    (file,) = audit_log.files(tmp_path)
    file.write_bytes(file.read_bytes().replace(b'"spec_seal":"2"', b'"spec_seal":"2\xff'))
    log = seals.read(tmp_path)
    assert log.specs == {"b": "4"}
    assert "damaged" in log.error


def test_an_absent_log_is_damaged(tmp_path: Path) -> None:
    assert seals.read(tmp_path / "audit") == seals.Seals({}, {}, "it is absent")


def test_a_changed_line_is_an_error_of_the_log(tmp_path: Path) -> None:
    write(tmp_path, ("a", "1", ""), ("b", "2", ""), ("b", "4", ""))
    (file,) = audit_log.files(tmp_path)
    file.write_bytes(file.read_bytes().replace(b'"seal":"1"', b'"seal":"9"'))
    assert seals.read(tmp_path).error
