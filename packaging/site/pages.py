"""The order of the pages of the documentation site, and their sources.

``SECTIONS`` is the navigation. ``OTHER_SOURCES`` are pages whose source is outside ``docs``. The
pages of decisions are below ``decisions/index``, in the order of its links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROJECT = Path(__file__).resolve().parents[2]
REPOSITORY_FILES = "project"  # the directory of the site for sources outside docs

# Titles and pages, without the extension. A name that ends with / is a generated directory.
SECTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Start", ("install", "first-container", "web", "migrate-from", "clients", "differences")),
    ("Images", ("images", "build", "registries", "trust")),
    ("Networks and data", ("networks", "volumes", "secrets", "devices")),
    (
        "Security",
        (
            "security",
            "profiles",
            "security-options",
            "labels",
            "authority",
            "audit",
            "report",
            "honeypot",
        ),
    ),
    ("Method", ("method", "map", "record", "harden", "harden-images", "why")),
    ("Kubernetes", ("kubernetes", "kube-play")),
    ("Rootless", ("rootless",)),
    (
        "Operate",
        (
            "operate",
            "systemd",
            "metrics",
            "debug",
            "edit",
            "storage",
            "remote",
            "checkpoint",
            "migration",
            "runtimes",
            "jaula-runtime",
        ),
    ),
    ("Reference", ("commands/", "run-flags", "settings", "help-topics", "api")),
    ("Español", ("es/leeme", "es/metodo")),
    (
        "Project",
        (
            "architecture",
            "decisions/index",
            "how-a-container-starts",
            "performance",
            "testing",
            "vm-results",
            "project/contributing",
            "project/security-policy",
            "project/changelog",
        ),
    ),
)

# Pages that need not exist yet: a page in docs that is not in SECTIONS is an error either way.
OPTIONAL = frozenset(
    {"install", "web", "migrate-from", "kube-play", "systemd", "metrics", "debug", "edit"}
)

# Page of the site: file of the repository.
OTHER_SOURCES = {
    "es/leeme": "README.es.md",
    "project/contributing": "CONTRIBUTING.md",
    "project/security-policy": "SECURITY.md",
    "project/changelog": "CHANGELOG.md",
}
GENERATED = ("commands/", "help-topics", "api")

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*)\]\((?P<target>[^)\s]+)\)")


def named() -> set[str]:
    """Return the names of all pages of the navigation."""
    return {page for _, pages in SECTIONS for page in pages}


def decisions() -> list[str]:
    """Return the pages to which the index of decisions links, in its order."""
    index = PROJECT / "docs/decisions/index.md"
    targets = [match["target"] for match in links(index.read_text())]
    return [f"decisions/{name.removesuffix('.md')}" for name in targets if "/" not in name]


def committed() -> dict[str, Path]:
    """Return the files of the pages of ``docs`` by page name, the home page ``index`` included."""
    docs = PROJECT / "docs"
    return {
        path.relative_to(docs).with_suffix("").as_posix(): path
        for path in sorted(docs.rglob("*.md"))
    }


def sources() -> dict[str, Path]:
    """Return the file of each page that is not generated.

    :raises SystemExit: when a page of ``docs`` has no place in ``SECTIONS`` or in the index of
        decisions, or one of ``SECTIONS`` does not exist.
    """
    found = committed()
    found |= {page: PROJECT / file for page, file in OTHER_SOURCES.items()}
    linked = set(decisions())
    expected = named() | {"index"}
    problems = [
        f"docs/{page}.md has no line in docs/decisions/index.md"
        if page.startswith("decisions/")
        else f"docs/{page}.md has no place in SECTIONS (packaging/site/pages.py)"
        for page in sorted(found.keys() - expected - linked)
    ]
    problems += [
        f"{page} is in SECTIONS (packaging/site/pages.py), and docs/{page}.md does not exist"
        for page in sorted(expected - found.keys() - OPTIONAL - set(GENERATED))
    ]
    problems += [f"{path} does not exist" for path in found.values() if not path.exists()]
    if problems:
        raise SystemExit("\n".join(f"build-docs: {problem}" for problem in problems))
    return found


def navigation(existing: set[str], generated: dict[str, list[str]]) -> str:
    """Return the toctrees of the home page, in MyST's syntax.

    ``generated`` has the pages of each directory of ``SECTIONS``.
    """
    blocks = []
    for title, pages in SECTIONS:
        entries = [
            entry
            for page in pages
            for entry in generated.get(page, [page])
            if entry in existing or page in generated
        ]
        if entries:
            lines = "\n".join(entries)
            blocks.append(f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n{lines}\n```")
    return "\n\n".join(blocks) + "\n"


def links(text: str) -> Iterator[re.Match[str]]:
    """Yield the links of a page that lead to a file, outside code."""
    for match in _LINK.finditer(_without_code(text)):
        if not re.match(r"[a-z]+:|#", match["target"]):
            yield match


def _without_code(text: str) -> str:
    """Replace code by spaces: positions stay."""
    blank = lambda match: re.sub(r"[^\n]", " ", match[0])  # noqa: E731
    text = re.sub(r"^```.*?^```$", blank, text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`(?!\]\()", blank, text)


def rewrite_links(text: str, source: Path, page: str, of_file: dict[Path, str]) -> str:
    """Return the page's text with the links of the repository replaced by those of the site.

    ``of_file`` has the page of each source. A link to a file that is not a page becomes its name.

    :raises SystemExit: when the file does not exist.
    """
    result, position = "", 0
    for match in links(text):
        path, hash_sign, anchor = match["target"].partition("#")
        target = (source.parent / path).resolve()
        if target.name == "openapi.json":
            replacement = f"[{match['text']}]({_relative('api', page)}.md)"
        elif target in of_file:
            to = f"{_relative(of_file[target], page)}.md{hash_sign}{anchor}"
            is_file_name = match["text"].rpartition("/")[2] == target.name
            label = title(target) if is_file_name else match["text"]
            replacement = f"[{label}]({to})"
        elif target.exists():
            replacement = match["text"]
        else:
            raise SystemExit(
                f"build-docs: {source.relative_to(PROJECT)}: link to {match['target']}: "
                "the file does not exist"
            )
        result += text[position : match.start()] + replacement
        position = match.end()
    return result + text[position:]


def title(path: Path) -> str:
    """Return the title of a page, its first heading."""
    with path.open() as file:
        return next(line for line in file if line.startswith("# ")).removeprefix("# ").strip()


def _relative(page: str, start: str) -> str:
    """Return the path from one page to another."""
    up = len(PurePosixPath(start).parts) - 1
    return "../" * up + page
