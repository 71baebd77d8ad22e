"""The catalogue of translations: complete, without stale entries, and read correctly."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine import PROJECT
from harness.scripts import load_program
from jaula.cli import command_table, help
from jaula.translation import language, po_catalog, topics
from jaula.translation.po_catalog import CatalogError, parse

SPANISH = Path(po_catalog.path("es"))
# What a user types, or a value that a translation must not lose.
WORD = re.compile(
    r"--[a-z][\w-]*|\{\w*\}|\{\{[^}]*\}\}|/(?:etc|run|proc|dev)/[\w/.-]+|\bjaula [a-z]+"
)


def entries() -> dict[str, str]:
    return parse(SPANISH.read_text().splitlines())


def test_no_text_is_missing_and_none_is_stale() -> None:
    done = subprocess.run(
        [sys.executable, PROJECT / "scripts/translations", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_translation_has_the_flags_values_and_paths_of_its_text() -> None:
    for text, translation in entries().items():
        for word in set(WORD.findall(text)):
            if word.startswith("jaula ") and word[6:] not in command_table.commands():
                continue
            assert word in translation, f"{text!r}: {word} is not in {translation!r}"
        assert set(re.findall(r"\{\w+\}", translation)) == set(re.findall(r"\{\w+\}", text))


def test_a_translation_ends_as_its_text() -> None:
    for text, translation in entries().items():
        assert text.endswith((".", ":")) == translation.endswith((".", ":")), text


@pytest.mark.skipif(shutil.which("msgfmt") is None, reason="gettext is not installed")
def test_gettext_reads_the_catalogue() -> None:
    done = subprocess.run(
        ["msgfmt", "--check-format", "--check-domain", "-o", "/dev/null", SPANISH],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", sorted(set(command_table.commands())))
def test_every_help_page_is_spanish_and_fits(words: str) -> None:
    command = command_table.load(words)
    page = help.page(command, "es")
    assert page.startswith(f"Uso:  jaula {words}")
    assert "Ejemplos:" in page
    for line in page.splitlines():
        assert len(line) <= 110 or line.lstrip().startswith("$ ")
    assert help.page(command, "en").startswith("Usage:")


@pytest.mark.parametrize("name", topics.NAMES)
def test_a_topic_is_short_and_has_the_same_commands_in_both_languages(name: str) -> None:
    english, spanish = topics.text(name, "en"), topics.text(name, "es")
    for text in (english, spanish):
        assert 25 <= len(text.splitlines()) <= 60
        assert max(map(len, text.splitlines())) <= 80
    for text, other in ((english, spanish), (spanish, english)):
        for flag in re.findall(r"(?<!\w)--?[a-zA-Z][\w-]*", text):
            assert flag in other or flag == "--lang", flag


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "en"),
        ({"LANG": "es_ES.UTF-8"}, "es"),
        ({"LANG": "es"}, "es"),
        ({"LANG": "es_MX@euro"}, "es"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "estonia"}, "en"),
        ({"LANG": "es_ES.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "es_ES.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "es_AR.UTF-8"}, "es"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "es:en"}, "es"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "de:es"}, "es"),
        ({"LANG": "es_ES.UTF-8", "LANGUAGE": "en"}, "en"),
        ({"LANG": "C", "LANGUAGE": "es"}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANGUAGE": "es"}, "en"),
        ({"LANG": "es_ES.UTF-8", "LANGUAGE": ":"}, "es"),
    ],
)
def test_the_environment_chooses_as_in_gettext(variables: dict[str, str], expected: str) -> None:
    assert language.choose(lambda name: variables.get(name, "")) == expected


def test_strings_are_joined_and_unescaped() -> None:
    text = r"""# a comment
msgid ""
msgstr "Language: es\n"

#. place
msgid "one \"two\""
msgstr ""
"uno "
"\"dos\"\n\ttres \\ "

#, fuzzy
msgid "doubtful"
msgstr "dudoso"
#~ msgid "old"
#~ msgstr "viejo"
msgid "new"
msgstr "nuevo"
msgid "empty"
msgstr ""
"""
    assert parse(text.splitlines()) == {
        'one "two"': 'uno "dos"\n\ttres \\ ',
        "new": "nuevo",
        "empty": "",
    }


@pytest.mark.parametrize("line", ['"no keyword"', "msgid no-quote", 'msgid "', "words"])
def test_a_line_of_another_form_is_an_error(line: str) -> None:
    with pytest.raises(CatalogError, match="line 1"):
        parse([line])


@given(st.text())
def test_any_text_is_entries_or_an_error(text: str) -> None:
    try:
        parse(text.splitlines())
    except CatalogError:
        pass


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), max_size=5))
def test_what_the_script_writes_is_read_back(texts: dict[str, str]) -> None:
    script = load_program("translations")
    lines = [script.entry(text, translation, "") for text, translation in texts.items()]
    assert parse("\n".join(lines).split("\n")) == texts


def test_an_english_text_needs_no_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(po_catalog, "path", lambda _: "/nonexistent")
    assert po_catalog.translator("en")("List containers") == "List containers"


def test_an_unknown_text_stays_english() -> None:
    assert po_catalog.translator("es")("no such text") == "no such text"
    assert po_catalog.translator("es")("List containers") == "Listar contenedores"
