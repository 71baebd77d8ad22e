"""Unit files: sections, continuation, empty values, merging, hostile files."""

from pathlib import Path

import pytest

from jaula.features.quadlet.unit_file import MAX_SIZE, InvalidUnit, UnitFile, load


def unit(text: str) -> UnitFile:
    result = UnitFile("x.container", "/x/x.container")
    result.read(text)
    return result


def test_a_file_is_rendered_as_it_was_read() -> None:
    text = "# top\n[Unit]\n; note\nDescription=a b\n\n# of it\n[Container]\nImage=x\n"
    assert unit(text).render() == text


def test_a_section_that_occurs_twice_is_one() -> None:
    read = unit("[A]\nk=1\n[B]\nk=2\n[A]\nk=3\n")
    assert read.texts("A", "k") == ["1", "3"]
    assert read.text("A", "k") == "3"


def test_a_line_continues_after_a_backslash_and_comments_between_are_ignored() -> None:
    read = unit("[A]\nk=one \\\n# note\n  two \\\nthree\nl=4\n")
    assert read.words("A", "k") == ["one", "two", "three"]
    assert read.text("A", "l") == "4"


def test_an_empty_value_removes_those_before() -> None:
    assert unit("[A]\nk=1\nk=\nk=2\n").texts("A", "k") == ["2"]


def test_quotes_around_a_value_are_removed() -> None:
    assert unit('[A]\nk="a b"\n').text("A", "k") == "a b"


@pytest.mark.parametrize("word", ["1", "yes", "True", "ON"])
def test_a_boolean_has_the_words_of_systemd(word: str) -> None:
    assert unit(f"[A]\nk={word}\n").on("A", "k")
    assert not unit("[A]\nk=no\n").on("A", "k", default=True)


def test_pairs_are_the_words_with_an_equals_sign() -> None:
    assert unit("[A]\nk=a=1 'b=2 3' c\nk=a=4\n").pairs("A", "k") == {"a": "4", "b": "2 3"}


@pytest.mark.parametrize(
    "text",
    ["k=1\n", "[A]\nword\n", "[]\nk=1\n", "[A[B]\nk=1\n", "[A]\n=1\n", "[A]\nk=\0\n", "[A\nk=1"],
)
def test_a_line_that_is_none_of_them_is_an_error_with_its_number(text: str) -> None:
    with pytest.raises(InvalidUnit, match=r"line \d"):
        unit(text)


def test_an_escape_that_is_unknown_names_the_key() -> None:
    with pytest.raises(InvalidUnit, match="Exec in section Container"):
        unit("[Container]\nExec=a \\q\n").words("Container", "Exec")


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.container"
    path.write_bytes(b"#" * (MAX_SIZE + 1))
    with pytest.raises(InvalidUnit, match="larger"):
        load(str(path))


def test_bytes_that_are_not_text_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.container"
    path.write_bytes(b"[A]\nk=\xff\n")
    assert load(str(path)).text("A", "k") == "\udcff"
