"""The answers of ``jaula why`` in Spanish: the view translates them by their templates."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaula.features.web.static_files import DIRECTORY
from jaula.features.why.layers import CALL_GIVES_AWAY, GIVES_AWAY, Layer
from jaula.security.masked_paths import MASKS, READONLY
from jaula.security.seccomp.default_profile import PERSONALITIES, TERMINAL_REQUESTS

SOURCE = DIRECTORY.parents[1]
MODULES = ("diagnosis", "exec_errors", "explain", "layers", "lsm_denials", "oom", "profile_items")
"""The modules of ``jaula.features.why`` that compose answers."""
CALLS = frozenset({"Explanation", "ExecError", "result", "rlimit"})
NAMES = frozenset(
    ("rule", "proof", "flag", "gives_away", "advice", "reason", "detail", "changes", "in_profile")
)
"""Calls and names that texts of answers are given to."""

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("static")
    (target / "i18n").mkdir()
    for name in ("templates.js", "i18n/why.js"):
        shutil.copy(DIRECTORY / name, target / name)
    (target / "package.json").write_text('{"type": "module"}')
    return target


def node(static: Path, program: str, value: object) -> Any:
    file = static / "test-program.js"
    file.write_text(
        "import { translator } from './templates.js';\n"
        "import { answers, layers } from './i18n/why.js';\n"
        "import fs from 'fs';\n"
        "const value = JSON.parse(fs.readFileSync(0, 'utf8'));\n"
        f"process.stdout.write(JSON.stringify({program}));\n"
    )
    done = subprocess.run(
        ["node", str(file)], input=json.dumps(value), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def spanish(static: Path, *texts: str) -> list[str]:
    found: list[str] = node(static, "value.map(translator(answers))", texts)
    return found


def templates(module: str) -> Iterator[str]:
    """Yield the texts of a module that are given to an answer, with ``{}`` for each value."""
    tree = ast.parse((SOURCE / f"why/{module}.py").read_text())
    roots: list[ast.expr] = []
    for node_ in ast.walk(tree):
        if isinstance(node_, ast.Call):
            name = getattr(node_.func, "attr", getattr(node_.func, "id", ""))
            if name in CALLS:
                roots += [*node_.args, *(each.value for each in node_.keywords)]
            elif name == "append" and getattr(node_.func.value, "id", "") in NAMES:  # type: ignore[attr-defined]
                roots += node_.args
        elif isinstance(node_, ast.Assign | ast.AugAssign):
            targets = node_.targets if isinstance(node_, ast.Assign) else [node_.target]
            if any(getattr(target, "id", "") in NAMES for target in targets):
                roots.append(node_.value)
        elif isinstance(node_, ast.Return) and node_.value is not None:
            roots.append(node_.value)
    for root in roots:
        yield from _texts(root)


def _texts(node_: ast.expr) -> Iterator[str]:
    if isinstance(node_, ast.Constant):
        if isinstance(node_.value, str):
            yield node_.value
    elif isinstance(node_, ast.JoinedStr):
        yield "".join(
            str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node_.values
        )
    elif isinstance(node_, ast.IfExp):
        yield from _texts(node_.body)
        yield from _texts(node_.orelse)
    elif isinstance(node_, ast.BinOp | ast.BoolOp | ast.Tuple):
        for child in ast.iter_child_nodes(node_):
            if isinstance(child, ast.expr):
                yield from _texts(child)


def _is_language(text: str) -> bool:
    """Return whether a text has words besides flags, paths and values."""
    words = text.replace("{}", " ").split()
    plain = [word for word in words if re.fullmatch(r"[a-z][a-z']+[,;:]?", word)]
    return len(plain) > 1 and not text.startswith(("jaula ", "mountinfo"))


def test_each_text_of_an_answer_is_in_the_table(static: Path) -> None:
    keys: list[str] = node(static, "Object.keys(answers)", None)
    table = "\n".join(re.sub(r"\{\w+\}|<\w+>", "{}", key) for key in keys)
    composed = [text for module in MODULES for text in templates(module) if _is_language(text)]
    assert len(composed) > 150
    given = (*GIVES_AWAY.values(), *CALL_GIVES_AWAY.values())
    given += tuple(text for _, text in (*MASKS, *READONLY, *TERMINAL_REQUESTS))
    texts = [text.strip() for text in (*composed, *given)]
    translated = spanish(static, *(text.replace("{}", "X") for text in texts))
    # Some texts are a part of an answer, and some have a template for each of their few values.
    patterns = [re.compile(re.escape(text).replace(r"\{\}", ".+?")) for text in texts]
    missing = [
        text
        for text, other, pattern in zip(texts, translated, patterns, strict=True)
        if other == text.replace("{}", "X") and pattern.search(table) is None
    ]
    assert not missing, missing


def test_each_layer_has_a_name(static: Path) -> None:
    table = node(static, "layers", None)
    names = {str(layer) for layer in Layer}
    assert table.keys() <= names
    assert names - table.keys() == {"seccomp", "lsm", "landlock", "rlimit"}  # the same in Spanish


def test_each_template_is_found_for_its_own_text(static: Path) -> None:
    """No template hides another, and both have the same values."""
    table: dict[str, str] = node(static, "answers", None)
    value = re.compile(r"[{<](\w+)[}>]")
    for english, text in table.items():
        assert sorted(value.findall(english)) == sorted(value.findall(text)), english
    found = spanish(static, *(value.sub(r"X\1", english) for english in table))
    others = [value.sub(r"X\1", text) for text in table.values()]
    hidden = [pair for pair in zip(found, others, strict=True) if pair[0] != pair[1]]
    assert not hidden, hidden


@pytest.mark.parametrize(
    ("english", "text"),
    [
        (
            "/a has mode 0600 and belongs to user 7; the process is user 1",
            "/a tiene el modo 0600, y su dueño es el usuario 7; el proceso es del usuario 1",
        ),
        (
            "no rule allows to execute /bin/ls (it is /usr/bin/ls)",
            "ninguna regla permite ejecutar /bin/ls (es /usr/bin/ls)",
        ),
        (
            'add "X" to files.read and add "/x" to devices of the profile p, which is the reason',
            'añade "X" a files.read y añade "/x" a devices del perfil p, que es el motivo',
        ),
        ("read returned EIO for the program", "read devolvió EIO para el programa"),
        ("exited, status 137: ended by SIGKILL", "terminado, estado 137: terminado por SIGKILL"),
        ("--cap-add SYS_ADMIN", "--cap-add SYS_ADMIN"),
        ("a text of a later version", "a text of a later version"),
    ],
)
def test_an_answer_is_translated_with_the_values_in_it(
    static: Path, english: str, text: str
) -> None:
    assert spanish(static, english) == [text]


def test_a_value_of_a_container_is_not_translated_and_costs_no_time(static: Path) -> None:
    path = "/the file/unlimited and {path} <proof> $& "
    unknown = "no route to unlimited, or its host"
    hostile = "; ".join(["the file does not exist in the container"] * 4000)
    found = spanish(static, f"{path} is a directory", hostile, unknown)
    assert found[0] == f"{path} es un directorio"
    assert found[1:] == [hostile, unknown]


def test_the_personalities_are_those_of_the_table() -> None:
    names = ", ".join(name for _, name in PERSONALITIES)
    assert names.endswith(", query the present one")
