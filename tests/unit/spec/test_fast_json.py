"""JSON by the interpreter's accelerator is the JSON of the json module."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.spec import fast_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_documents_round_trip(value: object) -> None:
    assert fast_json.decode(fast_json.encode(value).encode()) == value
    assert json.loads(fast_json.encode(value)) == value
    assert json.loads(fast_json.pretty(value)) == value


@pytest.mark.parametrize("data", [b"", b"{", b'{"a":}', b"{} {}", b"\xff", b"[1,]", b"<html>"])
def test_input_other_than_one_document_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        fast_json.decode(data)


def test_lines_are_decoded_at_any_chunk_boundary() -> None:
    data = b'{"a":1}\r\n{"b":[2]}\n\n{"c":"\xc3\xa9"}'
    for cut in range(1, len(data)):
        pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
        assert list(fast_json.decode_lines(pieces)) == [{"a": 1}, {"b": [2]}, {"c": "é"}]


def test_documents_without_a_newline_are_decoded() -> None:
    assert list(fast_json.decode_lines([b'{"a":1}{"b":2}'])) == [{"a": 1}, {"b": 2}]


def test_pretty_documents_look_like_dockers() -> None:
    value = {"a": [], "b": {}, "c": [1, {"d": None}]}
    assert fast_json.pretty([value]) == (
        '[\n    {\n        "a": [],\n        "b": {},\n        "c": [\n            1,\n'
        '            {\n                "d": null\n            }\n        ]\n    }\n]'
    )
