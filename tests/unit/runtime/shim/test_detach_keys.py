"""The detach sequence in a client's input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.runtime.shim.detach_keys import DetachScanner

KEYS = b"\x10\x11"


@pytest.mark.parametrize(
    ("pieces", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"\x10\x11"], b"", True),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"\x10x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_the_sequence_is_found_across_pieces(
    pieces: list[bytes], passed: bytes, detached: bool
) -> None:
    scanner = DetachScanner(KEYS)
    got, found = b"", False
    for piece in pieces:
        out, found = scanner.feed(piece)
        got += out
    assert (got, found) == (passed, detached)


@given(st.lists(st.binary(max_size=20)))
def test_without_keys_everything_passes(pieces: list[bytes]) -> None:
    scanner = DetachScanner(None)
    assert b"".join(scanner.feed(p)[0] for p in pieces) == b"".join(pieces)


@given(st.lists(st.binary(max_size=5), max_size=8))
def test_input_without_the_sequence_is_passed_on_but_for_an_open_prefix(
    pieces: list[bytes],
) -> None:
    whole = b"".join(pieces)
    scanner = DetachScanner(KEYS)
    got = b""
    for piece in pieces:
        out, found = scanner.feed(piece)
        got += out
        if found:
            assert KEYS in whole
            assert whole.startswith(got)
            return
    assert KEYS not in whole
    assert whole == got + KEYS[: scanner.matched]
