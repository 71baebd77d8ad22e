"""README.es.md is README.md in Spanish: the same sections, links and code."""

from __future__ import annotations

import re

from harness.engine import PROJECT

ENGLISH = (PROJECT / "README.md").read_text()
SPANISH = (PROJECT / "README.es.md").read_text()


def _outline(text: str) -> list[str]:
    """Return the levels of the headings and the code blocks, without comments, in order."""
    text = re.sub(r"<!--.*?-->\n+", "", text, flags=re.DOTALL)
    parts = re.findall(r"^```[\s\S]*?^```$|^#+ |(?:^    .*\n)+", text, re.MULTILINE)
    return [re.sub(r"(?<=\S) {2,}#.*", "", part).strip() for part in parts]


def test_the_headings_and_code_blocks_are_the_same() -> None:
    assert _outline(SPANISH) == _outline(ENGLISH)


def test_the_links_are_the_same() -> None:
    def links(text: str) -> set[str]:
        return set(re.findall(r"\]\(([^)]+)\)", text)) - {"README.md", "README.es.md"}

    # Each may name the page in its own language besides.
    missing = links(ENGLISH) - links(SPANISH) - {"docs/index.md"}
    assert not missing
    assert not links(SPANISH) - links(ENGLISH)
