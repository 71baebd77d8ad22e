"""Words of values: quotes, escapes, and quoting for a unit file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.features.quadlet import unit_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b\tc", ["a", "b", "c"]),
        ("  a  ", ["a"]),
        ("", []),
        ('"a b" c', ["a b", "c"]),
        ("'a \"b' \"c 'd\"", ['a "b', "c 'd"]),
        ('a"b c"d', ["ab cd"]),
        ('""', [""]),
        (r"a\x20b \u00e9 \101 \s \n", ["a b", "é", "A", " ", "\n"]),
        (r'"a\"b"', ['a"b']),
        ('"open', ["open"]),
        ("end\\", ["end"]),
    ],
)
def test_a_command_line_is_split_as_by_systemd(text: str, expected: list[str]) -> None:
    assert unit_words.split(text) == expected


def test_a_backslash_is_an_ordinary_character_in_a_list_of_names() -> None:
    assert unit_words.split(r"a\nb 'c d'", escapes=False) == [r"a\nb", "c d"]


@pytest.mark.parametrize("text", [r"\q", r"\x0", r"\xzz", r"\u12", r"\000", r"\777", r"\ud800"])
def test_an_unknown_escape_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="escape"):
        unit_words.split(text)


def test_a_quote_that_is_not_closed_is_an_error_in_a_list_of_names() -> None:
    with pytest.raises(ValueError, match="quote"):
        unit_words.split("'a", escapes=False)


@given(st.lists(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"))))
def test_joined_words_are_split_into_the_same_words(given_words: list[str]) -> None:
    assert unit_words.split(unit_words.join(given_words)) == given_words
