"""Topics of ``jaula help``: one text for each topic and language."""

from __future__ import annotations

NAMES = (
    "docker",
    "environment",
    "exit-codes",
    "formats",
    "kubernetes",
    "method",
    "networks",
    "profiles",
    "rootless",
    "security",
    "troubleshooting",
    "volumes",
)


def text(name: str, language: str) -> str:
    """Return the text of a topic; its first line is the title.

    :raises OSError: when it cannot be read.
    """
    with open(f"{__file__.rpartition('/')[0]}/{language}/{name}.txt", encoding="utf-8") as file:
        return file.read()


def title(name: str, language: str) -> str:
    """Return the title of a topic."""
    return text(name, language).partition("\n")[0]
