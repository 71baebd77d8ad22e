"""Every command has an example, and the command lines of help pages and documents parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness.engine import PROJECT
from jaula.cli import command_parser, command_table
from jaula.cli.cli_errors import UsageError
from jaula.translation import topics

PREFIXES = ("sudo", "time", "exec", "xargs", "-n1", "nohup")


def command_lines(text: str) -> list[list[str]]:
    """Return the words of each ``jaula`` command in a shell command line."""
    inner = [line for part in re.findall(r"\$\(([^()]*)\)", text) for line in command_lines(part)]
    text = re.sub(r"\$\([^()]*\)", "SUBSTITUTED", text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    commands: list[list[str]] = [[]]
    for word in lexer:
        if re.fullmatch(r"[|&;()]+", word):
            commands.append([])
        elif re.fullmatch(r"[<>&\d]*[<>][<>&\d]*", word):
            commands[-1].append(">")
        else:
            commands[-1].append(word)
    result = inner
    for words in commands:
        while words and (words[0] in PREFIXES or re.fullmatch(r"[A-Z_]+=.*", words[0])):
            words = words[1:]
        if words and words[0].rpartition("/")[2] == "jaula":
            end = words.index(">") if ">" in words else len(words)
            result.append(words[1:end])
    return result


def check(words: list[str]) -> None:
    """Parse a command line as the client does."""
    options = command_parser.parse(command_table.ROOT, words)
    rest = options.arguments
    if options.on("version") or options.on("help") or not rest:
        return
    path = next(
        (
            " ".join(rest[:count])
            for count in (2, 1)
            if " ".join(rest[:count]) in {**command_table.commands(), **command_table.aliases()}
        ),
        "",
    )
    if not path:
        assert rest[0] in command_table.groups(), f"not a command: {rest}"
        return
    command = command_table.load(path)
    parsed = command_parser.parse(command, rest[path.count(" ") + 1 :])
    if not parsed.on("help"):
        command_parser.check_arguments(parsed)


@pytest.mark.parametrize("words", sorted(command_table.commands()))
def test_every_command_has_an_example_of_itself_that_parses(words: str) -> None:
    command = command_table.load(words)
    assert command.examples
    lines = [line for _, example in command.examples for line in command_lines(example)]
    assert lines, "no example has a jaula command"
    for line in lines:
        check(line)


DOCUMENTS = [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").rglob("*.md"))]


def _commands_of(path: Path) -> list[str]:
    """Return the lines of the code blocks of a page that begin with a ``jaula`` command."""
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = re.findall(r"^(?:    |[#$] )((?:sudo )?(?:\./)?jaula [^\n]*)$", text, re.MULTILINE)
    return [line for line in lines if "..." not in line and "COMMAND" not in line]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_of_the_documents_parse(path: Path) -> None:
    for line in _commands_of(path):
        for words in command_lines(line):
            try:
                check(words)
            except UsageError as error:
                raise AssertionError(f"{line}: {error.message}") from None


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("name", topics.NAMES)
def test_the_commands_of_the_topics_parse(name: str, language: str) -> None:
    text = topics.text(name, language)
    lines = re.findall(r"^ +(?:\$ |\d  )((?:sudo )?jaula [^\n]*)$", text, re.MULTILINE)
    for line in (re.split(r" {2,}", line)[0] for line in lines):
        if "COMMAND" in line or "ORDEN" in line:
            continue
        for words in command_lines(line):
            check(words)


def test_only_modules_that_ask_for_the_terminal_write_escapes() -> None:
    for path in (PROJECT / "src/jaula/cli").rglob("*.py"):
        text = path.read_text()
        if re.search(r"\\x1b\[(?!\?:|\[0)", text) or "\\033[" in text:
            assert "jaula.cli.output" in text, path
            assert "ansi import" in text, f"{path}: ask jaula.cli.output.ansi first"
