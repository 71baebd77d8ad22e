"""TOML with bounds: what a short text can cost, and the same documents as ``tomllib``."""

from __future__ import annotations

import tomllib
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.cli.cli_errors import CliError
from jaula.engine.authz import policy_file
from jaula.errors import InvalidRequest
from jaula.features.audit.benchmark import exceptions
from jaula.features.edit.cli import edit_document
from jaula.features.trust import signature_policy
from jaula.features.web import web_config
from jaula.images.registry import hosts_file
from jaula.spec import confinement_profile, toml
from jaula.spec.quoted_string import quoted

MEMORY = 64 << 20  # bytes that a document of 1 MiB may take
HOSTILE = {
    "a dotted key": "a" + ".a" * 300_000 + " = 1",
    "a dotted key with spaces": "a" + " . a" * 200_000 + " = 1",
    "a quoted dotted key": '"a"' + '."a"' * 200_000 + " = 1",
    "a header": "[" + "a." * 300_000 + "a]",
    "an array of tables": "[[" + "a." * 300_000 + "a]]",
    "a key of an inline table": "x = { a" + ".a" * 300_000 + " = 1 }",
    "a key after a string": "s = '#'\na" + ".a" * 300_000 + " = 1",
    "a key after a long string": 's = """a"#"""\na' + ".a" * 300_000 + " = 1",
    "a key after an escaped quote": 's = "\\""\na' + ".a" * 300_000 + " = 1",
    "many keys of some parts": "".join(f"a{n}.b.c.d.e.f.g.h.i.j.k = 1\n" for n in range(30_000)),
    "many headers": "".join(f"[a{n}.b]\n" for n in range(60_000)),
    "arrays in arrays": "a = " + "[" * 400_000,
    "tables in tables": "a = " + "{a=" * 200_000,
    "many arrays": "a = [" + "[]," * 300_000 + "]",
    "many tables": "a = [" + "{}," * 300_000 + "]",
    "many lines": "#\n" * 500_000,
    "many keys": "".join(f"a{n}=1\n" for n in range(110_000)),
    "many escapes": 'a = "' + "\\n" * 500_000 + '"',
    "a long number": "a = " + "9" * 500_000,
    "a long hexadecimal number": "a = 0x" + "f" * 500_000 + "g",
    "not UTF-8": "a = '\udcff'",
}
ALL = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


def _nothing(path: str) -> bytes:
    return b""


READERS: dict[str, Callable[[bytes], Any]] = {
    "profile": lambda data: confinement_profile.load(data, "name"),
    "policy": lambda data: policy_file.parse(data, user=lambda _: 0, group=lambda _: 0),
    "trust policy": lambda data: signature_policy.parse_rules(data, _nothing),
    "hosts file": lambda data: hosts_file.parse(data, "/name"),
    "exceptions": lambda data: exceptions.parse(data, (), "name"),
    "web": lambda data: web_config.parse(data, "name"),
    "edit": lambda data: edit_document.change({}, data.decode("utf-8", "replace")),
}


@ALL
def test_a_hostile_text_is_refused_with_little_memory(text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            toml.loads(data)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", ["a dotted key", "a header", "arrays in arrays", "a long number"])
def test_every_reader_refuses_it(reader: Callable[[bytes], Any], name: str) -> None:
    with pytest.raises((InvalidRequest, CliError)):
        reader(HOSTILE[name].encode())


def test_no_other_module_parses_toml() -> None:
    source = Path(toml.__file__).parents[1]
    users = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if "import tomllib" in path.read_text() or "from tomllib" in path.read_text()
    }
    assert users == {"spec/toml.py"}


@pytest.mark.parametrize(
    "text",
    [
        'a.b."c.d".e = 1.5\n[x.y]\nz = 07:32:00.999\n',
        "a = '''it''s a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r'''\n",
        'a = """x\\\\"""\nb = """""two"""""\nc = "\\\\"\n# a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a\n',
        "a = [[1, 2], [{ b = 'c' }]] # [[[[[[[[[[[[[[[[[[[[\n",
        "a = 'x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x.x'\r\nb = 1\r\n",
    ],
)
def test_an_ordinary_text_is_the_same_document(text: str) -> None:
    assert toml.loads(text.encode()) == tomllib.loads(text)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=6))
def test_strings_read_back(words: list[str]) -> None:
    text = "".join(f"a{n} = {quoted(word)}\n" for n, word in enumerate(words))
    assert list(toml.loads(text.encode()).values()) == words


@given(st.text(st.sampled_from("\"'\\a.[]{}=#,\n 1"), max_size=60))
def test_a_short_text_is_refused_only_if_tomllib_refuses_it(text: str) -> None:
    try:
        expected: object = tomllib.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            toml.loads(text.encode())
        return
    try:
        assert toml.loads(text.encode()) == expected
    except ValueError:
        assert text.count(".") >= toml.MAX_PARTS or text.count("[") > toml.MAX_NESTING
