"""Seals are read from the audit log, and its chain is verified."""

from __future__ import annotations

from pathlib import Path

from jaula.audit.model import sealed_requests
from jaula.state import audit_log
from jaula.state.audit_log import AuditEntry, AuditLog


def write(directory: Path, *seals: tuple[str, str]) -> None:
    log = AuditLog(directory)
    for container, seal in seals:
        log.append(AuditEntry(action="container create", object=container, seal=seal))
    log.close()


def test_the_last_seal_of_each_container_is_its_own(tmp_path: Path) -> None:
    write(tmp_path, ("a", "1"), ("b", "2"), ("a", "3"), ("c", ""))
    log = sealed_requests.read(tmp_path)
    assert log.seals == {"a": "3", "b": "2"}
    assert log.error == ""


def test_a_changed_line_is_an_error_of_the_log(tmp_path: Path) -> None:
    write(tmp_path, ("a", "1"), ("b", "2"), ("b", "4"))
    (file,) = audit_log.files(tmp_path)
    file.write_bytes(file.read_bytes().replace(b'"seal":"1"', b'"seal":"9"'))
    assert sealed_requests.read(tmp_path).error
