"""Errors of the kernel as errors for a client, and the space that stays free."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.features.build.files import file_errno
from jaula.storage import free_space
from jaula.storage.file_errors import file_error


def refused(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (refused(errno.ENOSPC), Unavailable, "No space left on device"),
        (refused(errno.EDQUOT), Unavailable, "Disk quota exceeded"),
        (refused(errno.EIO), JaulaError, "Input/output error"),
        (refused(errno.EMFILE), Unavailable, "Too many open files"),
        (refused(errno.EROFS), Unavailable, "Read-only file system"),
        (refused(errno.ENAMETOOLONG), InvalidRequest, "File name too long"),
        (OSError("no number"), InvalidRequest, "no number"),
        (OverflowError("too large"), InvalidRequest, "too large"),
        (ValueError("embedded null byte"), InvalidRequest, "embedded null byte"),
    ],
)
def test_each_refusal_has_its_error(error: Exception, kind: type[JaulaError], text: str) -> None:
    made = file_error(error, "cannot copy 'x'")
    assert type(made) is kind
    assert made.message == f"cannot copy 'x': {text}"
    assert (made.hint is not None) is (kind is Unavailable)


def test_a_build_names_the_file_in_place_of_a_directory() -> None:
    with (
        pytest.raises(InvalidRequest, match="x: a file exists in place"),
        file_errno.translate_os_errors("x"),
    ):
        raise refused(errno.ENOTDIR)
    with pytest.raises(Unavailable, match="x: No space left"), file_errno.translate_os_errors("x"):
        raise refused(errno.ENOSPC)


def test_the_reserve_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        free = free_space.check(descriptor, 0)
        assert free > 0
        with pytest.raises(OSError, match="No space left"):
            free_space.check(descriptor, 1 << 62)
        monkeypatch.setattr(free_space, "RESERVE", 1 << 62)
        with pytest.raises(OSError, match="No space left"):
            free_space.check(descriptor, 0)
    finally:
        os.close(descriptor)
