"""Records for tests, made of entries."""

from __future__ import annotations

from typing import Any

from jaula.features.record import record_reader
from jaula.features.record.record_document import (
    VERSION,
    Container,
    Document,
    End,
    Entry,
    Header,
    Kernel,
    Loss,
    Program,
    encode_line,
)
from jaula.features.record.record_reader import Record
from jaula.state.audit_log import Head, line_hash

IMAGE = "sha256:" + "0" * 64


def record(
    *entries: tuple[str, str, dict[str, Any]],
    started: bool = True,
    losses: dict[str, Loss] | None = None,
    end: bool = True,
    **container: Any,
) -> Record:
    """Return a record of (kind, path of the program, fields).

    ``executed`` in the fields is a path. ``started``: the runtime executes the first program.
    """
    return record_reader.parse(
        lines(*entries, started=started, losses=losses, end=end, **container)
    )


def lines(
    *entries: tuple[str, str, dict[str, Any]],
    started: bool = True,
    losses: dict[str, Loss] | None = None,
    end: bool = True,
    **container: Any,
) -> list[bytes]:
    """Return the lines of a record, without newlines."""
    documents: list[Document] = [
        Header(
            version=VERSION,
            time="2026-11-29T03:21:35.289470Z",
            recorder="jaula",
            kernel=Kernel(release="6.18", version="", machine="x86_64", boot_id=""),
            container=Container(
                **{"id": "1" * 64, "name": "web", "image": "busybox", "image_id": IMAGE} | container
            ),
            mechanism="ebpf-tracepoints",
            sources=("sys_exit",),
            cgroup="unified:/",
            from_start=started,
        )
    ]
    programs: dict[str, int] = {"": 0}

    def number(path: str) -> int:
        if path not in programs:
            documents.append(Program(path=path))
            programs[path] = len(documents)
        return programs[path]

    if started and entries:
        first = next((program for _, program, _ in entries if program), "/bin/sh")
        entries = (("exec", "", {"executed": first}), *entries)
    for kind, program, fields in entries:
        references = {"program": number(program)}
        if "executed" in fields:
            references["executed"] = number(fields["executed"])
        documents.append(Entry(**{"kind": kind} | fields | references))  # type: ignore[arg-type]
    if end:
        documents.append(End(reason="signal", duration=7_000_000, losses=losses or {}))
    head = Head()
    result = []
    for document in documents:
        line = encode_line(head, document)
        head = Head(head.n + 1, line_hash(line))
        result.append(line)
    return result
