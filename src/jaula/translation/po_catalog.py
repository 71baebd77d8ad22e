"""Catalogue of translated texts: a PO file of GNU gettext, read when a text is translated.

The file is read as it is committed, without a compiled copy: a help page in Spanish costs some
milliseconds more, and no other command reads it.

Source: "The Format of PO Files" in the manual of GNU gettext. The reader knows msgctxt-less entries
without plural forms, which are all that ``scripts/translations`` writes.
"""

from __future__ import annotations

from jaula.translation.language import ENGLISH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}


_loaded: dict[str, dict[str, str]] = {}


class CatalogError(ValueError):
    """A line of the file is not part of an entry."""


def translator(language: str) -> Callable[[str], str]:
    """Return the function that translates an English text. A text without an entry stays English.

    :raises OSError: when the catalogue cannot be read.
    """
    if language == ENGLISH:
        return lambda text: text
    if language not in _loaded:
        with open(path(language), encoding="utf-8") as file:
            _loaded[language] = parse(file)
    entries = _loaded[language]
    return lambda text: entries.get(text) or text


def path(language: str) -> str:
    """Return the file of the catalogue of a language."""
    return f"{__file__.rpartition('/')[0]}/{language}.po"


def parse(lines: Iterable[str]) -> dict[str, str]:
    """Return the translations by their English texts; those marked fuzzy are left out.

    :raises CatalogError: when a line is neither a comment, a keyword nor a string.
    """
    entries: dict[str, str] = {}
    texts = {"msgid": "", "msgstr": ""}
    keyword, is_fuzzy = "", False
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if line.startswith("#"):
            if keyword == "msgstr":
                if not is_fuzzy:
                    entries[texts["msgid"]] = texts["msgstr"]
                keyword, is_fuzzy = "", False
            is_fuzzy = is_fuzzy or (line.startswith("#,") and "fuzzy" in line)
            continue
        if not line:
            continue
        word, space, string = line.partition(" ")
        if space and word in texts:
            if word == "msgid":
                if keyword == "msgstr":
                    if not is_fuzzy:
                        entries[texts["msgid"]] = texts["msgstr"]
                    is_fuzzy = False
                texts = {"msgid": "", "msgstr": ""}
            keyword = word
        else:
            string = line
        if not keyword or len(string) < 2 or string[0] != '"' or string[-1] != '"':
            raise CatalogError(f"line {number}: {line!r} is not part of an entry")
        texts[keyword] += _unescape(string[1:-1])
    if keyword == "msgstr" and not is_fuzzy:
        entries[texts["msgid"]] = texts["msgstr"]
    entries.pop("", None)  # the header
    return entries


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    result, escape = [], False
    for character in text:
        if escape:
            result.append(ESCAPES.get(character, character))
            escape = False
        elif character == "\\":
            escape = True
        else:
            result.append(character)
    return "".join(result)
