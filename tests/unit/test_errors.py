"""Errors of the kernel about what the host lacks, as errors for a client."""

from __future__ import annotations

import errno
import os
import re
import socket

import pytest

from harness.engine import PROJECT
from jaula.errors import (
    JaulaError,
    RuntimeFailure,
    Unavailable,
    resource_error,
    runtime_error,
    system_error_text,
)
from jaula.runtime.init.init_sync import decode_failure, report


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "free some space and try again"),
        (errno.EDQUOT, "free some space and try again"),
        (errno.EROFS, "make the file system writable and try again"),
        (errno.EMFILE, "raise the limit of open files and try again"),
        (errno.ENFILE, "raise the limit of open files and try again"),
    ],
)
def test_what_the_host_lacks_is_a_503_with_the_remedy(number: int, hint: str) -> None:
    made = resource_error(OSError(number, os.strerror(number)), "cannot store a blob")
    assert type(made) is Unavailable
    assert made.status == 503
    assert str(made) == f"cannot store a blob: {os.strerror(number)} ({hint})"


@pytest.mark.parametrize("error", [OSError("no number"), OSError(errno.EIO, "x"), ValueError()])
def test_other_errors_are_left(error: Exception) -> None:
    assert resource_error(error, "x") is None


def reported(error: BaseException) -> RuntimeFailure:
    """Return what the parent makes of an error that a new process has reported."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        child = os.fork()
        if not child:
            report(theirs, error, "mount sysfs at /sys")
        os.waitpid(child, 0)
        data = ours.recv(4096)
    assert data[:1] == b"E"
    return decode_failure(data[1:])


@pytest.mark.parametrize(
    ("error", "status", "code", "text"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "sys"),
            503,
            125,
            "mount sysfs at /sys: No space left on device (sys) (free some space and try again)",
        ),
        (
            runtime_error(OSError(errno.EROFS, "Read-only file system"), "root file system"),
            503,
            125,
            "root file system: Read-only file system (make the file system writable and try again)",
        ),
        (runtime_error(OSError(errno.EIO, "x"), "root"), 500, 125, "root: [Errno 5] x"),
        (
            OSError(errno.EROFS, "Read-only file system"),
            500,
            125,
            "mount sysfs at /sys: Read-only file system",
        ),
        (RuntimeFailure("exec: no such file", exit_code=127), 400, 127, "exec: no such file"),
        (JaulaError("other"), 500, 125, "other"),
        (ValueError("bad"), 500, 125, "mount sysfs at /sys: ValueError: bad"),
    ],
)
def test_a_failure_crosses_processes_with_its_status(
    error: BaseException, status: int, code: int, text: str
) -> None:
    failure = reported(error)
    assert (failure.status, failure.exit_code, str(failure)) == (status, code, text)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOENT, os.strerror(errno.ENOENT)), "x: No such file or directory"),
        (OSError(errno.EPERM, "netlink: add veth"), "x: netlink: add veth"),
        (OSError("only a text"), "x: only a text"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/a"),
         "x: /a: No such file or directory"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), b"/a"),
         "x: /a: No such file or directory"),
        (OSError(errno.EBADF, os.strerror(errno.EBADF), 5), "x: Bad file descriptor"),
    ],
)  # fmt: skip
def test_an_error_of_the_kernel_says_what_was_asked(error: OSError, text: str) -> None:
    assert system_error_text("x", error) == text


def test_no_error_number_is_a_whole_message() -> None:
    """Every error that reaches a client says what was asked."""
    bare = re.compile(
        r"raise (?:JaulaError|RuntimeFailure|Unavailable|InvalidRequest|Conflict)\(\s*"
        r"(?:str\((?:error|exc)(?:\.strerror)?\)|(?:error|exc)\.strerror|os\.strerror\()"
    )
    found = []
    for path in (PROJECT / "src/jaula").rglob("*.py"):
        text = path.read_text()
        found += [
            f"{path.relative_to(PROJECT)}: {match[0]}"
            for match in bare.finditer(text)
            if "CliError as error" not in text[max(0, match.start() - 80) : match.start()]
        ]
    assert found == []
