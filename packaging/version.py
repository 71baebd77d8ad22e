"""Version of a build: the tag of git if there is one, ``__version__`` otherwise.

Hatch calls :func:`version` (``[tool.hatch.version]`` in pyproject.toml), and so do the scripts that
build packages. ``src/jaula/__init__.py`` has the version of the next or last release, and a tag
``vX.Y.Z`` names the commit of a release.

* At the tag ``v0.3.0`` the version is 0.3.0.
* 12 commits after it, it is 0.3.0.post12+gCOMMIT.
* 12 commits after the tag, with ``__version__`` raised to 0.4.0, it is 0.4.0.dev12+gCOMMIT.
* Without git, or without a tag, it is ``__version__``. A source distribution has the version of its
  build there.

A build writes its version into the ``__init__.py`` that it packs, so ``jaula version`` never runs
git. Source of the forms: PEP 440.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE = Path("src/jaula/__init__.py")
_CONSTANT = re.compile(r'^__version__ = "([^"\n]+)"$', re.MULTILINE)
_DESCRIBED = re.compile(r"v(\d+(?:\.\d+)+(?:(?:a|b|rc)\d+)?)-(\d+)-g([0-9a-f]+)\Z")


def version(root: Path = ROOT) -> str:
    """Return the version of the tree at ``root``."""
    constant = constant_version((root / MODULE).read_text(encoding="utf-8"))
    return of_description(constant, describe(root))


def describe(root: Path) -> str:
    """Return ``git describe`` of the tree, "" without git, repository or tag."""
    if not (root / ".git").exists():
        return ""  # a repository around an unpacked archive is not that of the archive
    words = ["git", "-C", str(root), "-c", "safe.directory=*"]
    words += ["describe", "--tags", "--long", "--abbrev=9", "--match", "v[0-9]*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def of_description(constant: str, description: str) -> str:
    """Return the version of a tree with this constant and ``git describe``. Pure.

    :raises ValueError: when the tag does not have the form of a version.
    """
    if not description:
        return constant
    match = _DESCRIBED.match(description)
    if match is None:
        raise ValueError(f"{description}: the tag must be v and a version, such as v0.3.0")
    tag, distance, commit = match[1], int(match[2]), match[3]
    if distance == 0:
        return tag
    kind = "post" if constant == tag else "dev"
    return f"{constant}.{kind}{distance}+g{commit}"


def constant_version(text: str) -> str:
    """Return ``__version__`` of a module. Pure.

    :raises ValueError: when the module has no such line.
    """
    match = _CONSTANT.search(text)
    if match is None:
        raise ValueError(f'{MODULE} has no line __version__ = "..."')
    return match[1]


def with_version(text: str, value: str) -> str:
    """Return the text of a module with another ``__version__``. Pure."""
    constant_version(text)
    return _CONSTANT.sub(f'__version__ = "{value}"', text, count=1)


def debian(value: str) -> str:
    """Return a version in dpkg's and rpm's order, where ``~`` sorts before the end. Pure."""
    return re.sub(r"(?<=\d)(?=(?:a|b|rc)\d)", "~", value.replace(".dev", "~~dev"))


if __name__ == "__main__":
    print(version())
