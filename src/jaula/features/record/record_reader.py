"""A record read from its file, with its chain verified.

Nothing in the file is trusted: lines and the file have limits, references are checked, and a line
that is not valid is an error with its number.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import msgspec

from jaula.errors import InvalidRequest, JaulaError, NotFound
from jaula.features.record.record_document import (
    MAX_LINE,
    UNKNOWN,
    UNLISTED,
    VERSION,
    End,
    Entry,
    Header,
    Program,
    Total,
    decode_line,
)
from jaula.state.audit_log import ChainCheck, Head

MAX_FILE = 256 << 20  # bytes
_MAX_ERRORS = 100


class Record(msgspec.Struct, frozen=True):
    """A record: entries have their final numbers, by the number of their line.

    ``errors`` are what is wrong with the chain or the lines, ``head`` is the last line.
    """

    header: Header | None
    programs: dict[int, Program]
    entries: dict[int, Entry]
    end: End | None
    head: Head
    errors: list[str]


def parse(lines: Iterable[bytes]) -> Record:
    """Return the record of these lines, each without its newline. Pure."""
    check = ChainCheck(Head())
    header: Header | None = None
    end: End | None = None
    programs: dict[int, Program] = {}
    entries: dict[int, Entry] = {}
    errors: list[str] = []

    def report(n: int, text: str) -> None:
        if len(errors) < _MAX_ERRORS:
            errors.append(f"line {n}: {text}")

    for link, line in check.lines(lines):
        if len(check.errors) > _MAX_ERRORS:
            break
        try:
            document = decode_line(line)
        except ValueError as error:
            report(link.n, f"not a line of a record: {error}")
            continue
        if end is not None:
            report(link.n, "it follows the end of the record")
        if isinstance(document, Header):
            if link.n != 1:
                report(link.n, "a second header")
            elif document.version != VERSION:
                report(link.n, f"version {document.version} is unknown, this is {VERSION}")
            else:
                header = document
        elif isinstance(document, Program):
            programs[link.n] = document
        elif isinstance(document, Entry):
            for each in (document.program, document.executed, document.receiver_program):
                if each not in (UNKNOWN, UNLISTED) and each not in programs:
                    report(link.n, f"no program on line {each}")
            entries[link.n] = document
        elif isinstance(document, Total):
            entry = entries.get(document.entry)
            if entry is None:
                report(link.n, f"no entry on line {document.entry}")
            elif document.count < entry.count:
                report(link.n, f"it counts less than the entry on line {document.entry}")
            else:
                entries[document.entry] = msgspec.structs.replace(
                    entry, count=document.count, first=document.first, last=document.last
                )
        else:
            end = document
    chain = [f"line {n}: {text}" for n, text in check.errors[:_MAX_ERRORS]]
    if header is None:
        errors.insert(0, "no header: not a record, or its first line was removed")
    if end is None:
        errors.append("no end: the recorder was killed, or lines at the end were removed")
    return Record(header, programs, entries, end, check.last, chain + errors)


def read(path: str) -> Record:
    """Return the record of a file; what is wrong with it is in ``errors``.

    :raises NotFound: when there is no such file.
    :raises InvalidRequest: when it is not a regular file, or exceeds a limit.
    :raises JaulaError: when it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidRequest(f"{path} is not a regular file")
            if status.st_size > MAX_FILE:
                raise InvalidRequest(
                    f"{path} has {status.st_size} bytes, a record has {MAX_FILE} at most"
                )
            return read_file(file, path)
    except FileNotFoundError:
        raise NotFound(f"no file {path}") from None
    except OSError as error:
        raise JaulaError(f"cannot read {path}: {error.strerror}") from error


def read_file(file: BinaryIO, path: str) -> Record:
    """Return the record of an open file. ``path`` names it in errors.

    :raises InvalidRequest: when it exceeds a limit.
    """
    return parse(_lines(path, file))


def _lines(path: str, file: BinaryIO) -> Iterator[bytes]:
    left = MAX_FILE  # it may grow
    while left > 0 and (line := file.readline(MAX_LINE + 1)):
        left -= len(line)
        if len(line) > MAX_LINE:
            raise InvalidRequest(f"{path} has a line of more than {MAX_LINE} bytes")
        yield line.removesuffix(b"\n")
