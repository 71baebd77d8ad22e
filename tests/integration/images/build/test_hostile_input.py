"""Arbitrary contexts and roots: a copy ends, and changes nothing outside the root."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.build_context import CopyContext, listed
from jaula.errors import JaulaError

NAMES = st.sampled_from(["a", "b", "c", "l"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
LED = st.sampled_from(
    ["/", "..", "../..", ".", "a", "/a/b", "../c", "l", "/l", "../../../../../outside", "b/../l"]
)
TREES = st.dictionaries(
    PATHS, st.one_of(st.none(), st.sampled_from(["1", "22"]), LED.map("-> ".__add__)), max_size=7
)
SOURCES = st.sampled_from(
    [".", "a", "a/b", "*", "a/*", "l", "../l", "?/b", "a/./b", "[a-c]", "l/../c", "**", "/"]
)
TARGETS = st.sampled_from(
    ["/", "a", "/a/", "/l", "/l/", "l/b", "../l/x/", "/a/../l/c", "new/deep/", "/b/l"]
)


def fill(root: Path, tree: Mapping[str, str | None]) -> None:
    """Create the paths of a tree that can exist; skip those below a file or through a link."""
    for path, content in tree.items():
        place = root / path
        try:
            for above in reversed(place.relative_to(root).parents[:-1]):
                if (root / above).is_symlink():
                    raise NotADirectoryError
                (root / above).mkdir(exist_ok=True)
            if content is None:
                place.mkdir()
            elif content.startswith("-> "):
                place.symlink_to(content[3:])
            elif not place.is_symlink():
                place.write_text(content)
        except OSError:
            continue


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(TREES, TREES, st.lists(SOURCES, min_size=1, max_size=2), TARGETS, st.booleans())
def test_a_copy_stays_in_its_root(
    context: dict[str, str | None],
    root: dict[str, str | None],
    sources: list[str],
    target: str,
    parents: bool,
) -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        top = Path(directory)
        copy_context = CopyContext(top, stack)
        fill(copy_context.context, context)
        fill(copy_context.root, root)
        (top / "outside").mkdir()
        (top / "outside/canary").write_text("canary")
        before = {name: facts for name, facts in listed(top).items() if name[:5] != "root/"}
        with suppress(JaulaError):
            copy_context.copy(*sources, to=target, workdir="/a", parents=parents)
        after = {name: facts for name, facts in listed(top).items() if name[:5] != "root/"}
        assert after == before
        assert os.listdir(top / "outside") == ["canary"]
