"""Texts in double quotes, read back by the parsers of both formats."""

from __future__ import annotations

import tomllib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jaula.spec.quoted_string import quoted

EACH = [chr(number) for number in (*range(0x3000), *range(0xFE00, 0x11000), 0x1F600, 0x10FFFF)]


def _read_back(text: str) -> tuple[str, str]:
    return tomllib.loads(f"a = {quoted(text)}")["a"], yaml.safe_load(f"a: {quoted(text)}")["a"]


def test_every_character_reads_back_in_both_formats() -> None:
    for start in range(0, len(EACH), 512):
        text = "".join(EACH[start : start + 512])
        assert _read_back(text) == (text, text)


@pytest.mark.parametrize(
    "text", ["", "\\x41", "\\", '"', "\x1b", "\x7f\x80\xff", "a: b # c", "\ufeff"]
)
def test_a_text_of_special_characters_reads_back(text: str) -> None:
    assert _read_back(text) == (text, text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_reads_back_and_is_printable(text: str) -> None:
    assert _read_back(text) == (text, text)
    assert quoted(text).isprintable()
