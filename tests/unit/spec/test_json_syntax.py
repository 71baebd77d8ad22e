"""Syntax errors of JSON in the words of Go's decoder."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.spec.json_syntax import syntax_error


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unexpected EOF"),
        ("{", "unexpected EOF"),
        ('{"a', "unexpected EOF"),
        ("[1,", "unexpected EOF"),
        ("-", "unexpected EOF"),
        ("1.", "unexpected EOF"),
        ("1e+", "unexpected EOF"),
        ("tru", "unexpected EOF"),
        (",", "invalid character ',' looking for beginning of value"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        ("{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 "b":2}', "invalid character '\"' after object key:value pair"),
        ('{"a":01}', "invalid character '1' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1}", "invalid character '}' after array element"),
        ("trux", "invalid character 'x' in literal true (expecting 'e')"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1ex", "invalid character 'x' in exponent of numeric literal"),
        ('"\\q"', "invalid character 'q' in string escape code"),
        ('"\\u12x4"', "invalid character 'x' in \\u hexadecimal character escape"),
        ('"a\nb"', "invalid character '\\n' in string literal"),
        ('"\x01"', "invalid character '\\x01' in string literal"),
        ("\u00e9", "invalid character '\u00c3' looking for beginning of value"),
    ],
)
def test_the_first_error_is_named(text: str, reason: str) -> None:
    assert syntax_error(text.encode()) == f"invalid JSON: {reason}"


def test_more_than_one_value_is_an_error() -> None:
    assert syntax_error(b'{"a":1} x') == "unexpected content after JSON"
    assert syntax_error(b'{"a":1} \n') == ""


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_valid_documents_have_no_error(value: object) -> None:
    if value not in (float("inf"), float("-inf")):
        text = json.dumps(value, allow_nan=True)
        assert "Infinity" in text or not syntax_error(text.encode())


@given(st.binary(max_size=40))
def test_any_bytes_end(data: bytes) -> None:
    try:
        json.loads(data.decode("latin-1"))
        valid = b"NaN" not in data and b"Infinity" not in data
    except ValueError:
        valid = False
    if valid:
        assert not syntax_error(data)
    else:
        assert syntax_error(data) or b"N" in data or b"I" in data


def test_a_deep_document_needs_no_stack() -> None:
    assert syntax_error(b"[" * 60_000) == "invalid JSON: unexpected EOF"
