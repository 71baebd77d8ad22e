"""One file out of an archive."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.features.web.archive_files import Member, first_member


def archive(name: str, content: bytes, kind: bytes = tarfile.REGTYPE, format: int = 1) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        info = tarfile.TarInfo(name)
        info.size, info.type = len(content), kind
        tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def read(data: bytes, step: int = 100) -> tuple[Member, bytes]:
    async def run() -> tuple[Member, bytes]:
        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(data), step):
                yield data[at : at + step]

        source = chunks()
        member = await first_member(source)
        return member, member.rest + b"".join([chunk async for chunk in source])

    return asyncio.run(run())


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a", "ñ" * 150, "d/" * 80 + "x"])
def test_the_content_of_the_first_file_is_returned(name: str, format: int) -> None:
    member, content = read(archive(name, b"hello" * 300, format=format))
    assert member.is_file
    assert member.size == 1500
    assert content[:1500] == b"hello" * 300


def test_a_directory_and_a_link_are_not_files() -> None:
    assert not read(archive("d", b"", tarfile.DIRTYPE))[0].is_file
    assert not read(archive("l", b"", tarfile.SYMTYPE))[0].is_file


def test_a_size_of_an_extended_header_wins() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a")
        info.size, info.pax_headers = 3, {"size": "3", "comment": "x" * 600}
        tar.addfile(info, io.BytesIO(b"abc"))
    member, content = read(file.getvalue())
    assert (member.size, content[:3]) == (3, b"abc")


@given(st.binary(max_size=1200))
def test_hostile_bytes_are_an_error_or_a_member(data: bytes) -> None:
    try:
        read(data)
    except InvalidRequest:
        return
    assert len(data) >= 512


def test_an_archive_that_ends_early_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="ends early"):
        read(archive("ñ" * 150, b"x", format=tarfile.PAX_FORMAT)[:700])
