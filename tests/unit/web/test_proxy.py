"""Which paths of the engine a browser may use, and the frames of an attached stream."""

from __future__ import annotations

import struct

import pytest

from jaula.features.web.web_proxy import refuse_path, unframe


@pytest.mark.parametrize(
    "path",
    [
        *("/jaula/web/links", "/jaula/web/logins", "/jaula/web/server"),
        *("/session", "/grpc", "/containers/a/attach", "/containers/a/attach/ws"),
        *("/exec/a/start", "/containers/../jaula/web/logins", "/containers/./a"),
        *("/containers/a/%61ttach", "/jaula/web/%6cogins", "/containers/%2e%2e/grpc"),
    ],
)
def test_a_path_that_is_not_for_browsers_is_refused(path: str) -> None:
    assert refuse_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "/containers/json",
        "/exec/a/json",
        "/jaula/web/whoami",
        "/containers/attach/json",
        "/build",
    ],
)
def test_other_paths_are_served(path: str) -> None:
    assert refuse_path(path) == ""


def frame(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", kind, len(data)) + data


def test_frames_are_joined_and_an_incomplete_one_is_kept() -> None:
    whole = frame(1, b"one ") + frame(2, b"two")
    assert unframe(whole) == (b"", b"one two")
    for cut in range(len(whole)):
        left, first = unframe(whole[:cut])
        rest, second = unframe(left + whole[cut:])
        assert (rest, first + second) == (b"", b"one two")
