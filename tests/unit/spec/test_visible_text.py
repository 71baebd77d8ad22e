"""Text of others: nothing in it changes what a terminal shows besides its own place."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.spec.visible_text import visible, visible_cell, visible_line

FORBIDDEN = {chr(n) for n in (*range(32), *range(0x7F, 0xA0))} - {"\n", "\t", "\r"}


@given(st.text())
def test_no_control_or_direction_character_is_left(text: str) -> None:
    shown = visible(text)
    assert not FORBIDDEN & set(shown)
    assert "\r" not in shown.replace("\r\n", "")
    assert not {c for c in shown if unicodedata.bidirectional(c) in ("LRE", "RLO", "LRI", "FSI")}
    assert visible(shown) == shown


@given(st.text())
def test_a_line_stays_one_line_and_a_cell_one_cell(text: str) -> None:
    assert len(visible_line(text).splitlines()) <= 1
    assert "\t" not in visible_cell(text)


@given(st.text())
def test_a_document_of_json_keeps_its_value(text: str) -> None:
    assert json.loads(visible(json.dumps({"a": text}, ensure_ascii=False))) == {"a": text}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ñ 漢 👩‍🔬\tx\n", "plain ñ 漢 👩‍🔬\tx\n"),
        ("a\r\nb", "a\r\nb"),
        ("done\rfailed", "done\\u000dfailed"),
        ("\x1b]0;title\x07", "\\u001b]0;title\\u0007"),
        ("\x9b31m", "\\u009b31m"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("\x00\x7f\x08", "\\u0000\\u007f\\u0008"),
        ("\udc9b31m", "\\udc9b31m"),
        ("a\u2028b", "a\\u2028b"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
