"""Pages of the reference, generated: commands, help topics, the API.

The commands come from the tables that parse the command lines, the API from docs/openapi.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaula.cli import command_table
from jaula.cli.command_parser import Command, Flag

PROJECT = Path(__file__).resolve().parents[2]
METHODS = ("get", "head", "post", "put", "delete")
OTHER = "jaula"  # the page of the commands that belong to no group


def anchor(words: str) -> str:
    """Return the anchor of a command in its page."""
    return "jaula-" + words.replace(" ", "-")


def page_of(words: str) -> str:
    """Return the name of the page that describes a command: its group, or that of its alias."""
    module = command_table.commands()[words]
    paths = [path for path in command_table.commands() if command_table.commands()[path] == module]
    for path in [words, *paths]:
        group, space, _ = path.partition(" ")
        if space:
            return group
    return words if words in command_table.groups() else OTHER


def command_pages() -> dict[str, str]:
    """Return the pages of the commands by name: one for each group, one for the others."""
    of_page: dict[str, list[str]] = {OTHER: []}
    described: set[str] = set()
    for words, module in command_table.commands().items():
        if module not in described:
            described.add(module)
            of_page.setdefault(page_of(words), []).append(words)
    pages = {}
    for page, commands in of_page.items():
        title = f"jaula {page}" if page != OTHER else "jaula"
        summary = command_table.groups().get(page, "Commands of the engine and of its host")
        parts = [f"# {title}", f"{summary}.", _index(commands)]
        if page == OTHER:
            parts.append("## Global options\n\n" + _flags(command_table.ROOT.flags))
        parts += [_command(words, command_table.load(words)) for words in sorted(commands)]
        pages[page] = "\n\n".join(parts) + "\n"
    return pages


def overview(pages: Iterable[str]) -> str:
    """Return the page that lists the pages of commands."""
    rows = [
        f"| [`jaula{'' if page == OTHER else ' ' + page}`]({page}.md) | "
        f"{command_table.groups().get(page, 'Commands of the engine and of its host')} |"
        for page in sorted(pages)
    ]
    return (
        "# Commands\n\nEvery command prints the same text with `--help`, and has a man page.\n\n"
        "| commands | subject |\n| --- | --- |\n" + "\n".join(rows) + "\n"
    )


def _index(commands: list[str]) -> str:
    rows = [
        f"| [`jaula {words}`](#{anchor(words)}) | {_cell(command_table.load(words).summary)} |"
        for words in sorted(commands)
    ]
    return "| command | |\n| --- | --- |\n" + "\n".join(rows)


def _command(words: str, command: Command) -> str:
    paths = [
        path
        for path, module in command_table.commands().items()
        if module == command_table.commands()[words] and path != words
    ]
    usage = f"jaula {words} {command.usage}".rstrip()
    parts = [f"## jaula {words}", f"{_prose(command.summary)}.", f"```text\n{usage}\n```"]
    if paths:
        parts.append("Also " + ", ".join(f"`jaula {path}`" for path in paths) + ".")
    parts += [_prose(text) for text in command.description.split("\n\n") if text]
    if command.flags:
        parts.append(_flags(command.flags))
    if command.examples:
        lines = "\n".join(f"# {text}\n{line}" for text, line in command.examples)
        parts.append(f"```sh\n{lines}\n```")
    if command.exit_status:
        rows = "\n".join(f"| {_cell(code)} | {_cell(text)} |" for code, text in command.exit_status)
        parts.append(f"| exit status | |\n| --- | --- |\n{rows}")
    if command.see_also:
        parts.append(
            "See also "
            + ", ".join(
                f"[`jaula {path}`]({page_of(path)}.md#{_main(path)})" for path in command.see_also
            )
            + "."
        )
    return "\n\n".join(parts)


def _main(words: str) -> str:
    """Return the anchor of the section that describes a command."""
    words = command_table.aliases().get(words, words)
    if words not in command_table.commands():
        return anchor(words)
    module = command_table.commands()[words]
    return anchor(next(path for path, of in command_table.commands().items() if of == module))


def _flags(flags: Iterable[Flag]) -> str:
    rows = []
    for flag in sorted(flags, key=lambda flag: flag.name):
        kind = flag.metavar or {"size": "bytes", "seconds": "int"}.get(flag.kind, flag.kind)
        value = "" if flag.kind == "bool" else f"[={kind}]" if flag.implied else f" {kind}"
        short = f"`-{flag.short}`, " if flag.short else ""
        default = f" (default `{flag.default}`)" if flag.default else ""
        rows.append(f"| {short}`--{flag.name}{_cell(value)}` | {_cell(flag.help)}{default} |")
    return "| option | |\n| --- | --- |\n" + "\n".join(rows)


def _prose(text: str) -> str:
    """Escape what Markdown would read as markup."""
    return re.sub(r"([*_<>\[\]`\\])", r"\\\1", text)


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|") if "`" not in text else text.replace("|", "\\|")


def help_topics() -> str:
    """Return the page with the topics of ``jaula help``."""
    from jaula.translation import topics

    parts = ["# Help topics\n\n`jaula help TOPIC` prints these pages, in English or Spanish."]
    for name in topics.NAMES:
        title, body = topics.text(name, "en").split("\n", 1)
        parts.append(f"## {title}\n\n`jaula help {name}`\n\n```text\n{body.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def api() -> str:
    """Return the page of the API: each operation with its parameters and body."""
    document = json.loads((PROJECT / "docs/openapi.json").read_text())
    by_tag: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                operation = operations[method]
                by_tag.setdefault(operation["tags"][0], []).append((method, path, operation))
    introduction = (
        "The engine serves the Docker Engine API, and its own endpoints below `/jaula`. Paths may "
        "begin with a version (`/v1.45/containers/json`). The same description as an OpenAPI "
        "document is `docs/openapi.json` in the repository. "
        "[Differences](differences.md) lists what differs from Docker."
    )
    parts = ["# API", introduction]
    for tag in sorted(by_tag):
        rows = []
        for method, path, operation in sorted(by_tag[tag], key=lambda row: (row[1], row[0])):
            summary = re.sub(r":? ``[A-Z]+ /[^`]*``", "", operation["summary"])
            summary = re.sub(r"``([^`]*)``", r"`\1`", summary).replace("|", "\\|")
            query = [
                f"`{parameter['name']}`"
                for parameter in operation["parameters"]
                if parameter["in"] == "query"
            ]
            cells = (f"`{method.upper()} {path}`", summary, ", ".join(query), _body(operation))
            rows.append(f"| {' | '.join(cells)} |")
        parts.append(
            f"## {tag}\n\n| operation | | query | body |\n| --- | --- | --- | --- |\n"
            + "\n".join(rows)
        )
    return "\n\n".join(parts) + "\n"


def _body(operation: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    return f"`{name}`" if name else ", ".join(f"`{kind}`" for kind in content)
