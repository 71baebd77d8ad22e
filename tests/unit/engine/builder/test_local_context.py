"""The paths of a context that a build uses."""

from __future__ import annotations

import pytest

from jaula.features.build.builder.local_context import used_paths
from jaula.images.dockerfile.dockerfile_parser import parse
from jaula.images.dockerfile.stage_graph import plan


def used(text: str) -> tuple[str, ...]:
    return used_paths([plan(parse(f"FROM base AS one\n{text}\n", "Dockerfile"))])


def test_the_sources_of_copies_and_mounts_are_used() -> None:
    text = (
        "COPY a ./b/ /c/d sub/*.txt /to/\nADD https://example.org/x e.tar /to/\n"
        "RUN --mount=type=bind,source=m,target=/m --mount=type=cache,target=/c true\n"
        "COPY <<EOF /here\ntext\nEOF\nCOPY --from=base x /y\n"
    )
    assert used(text) == ("a", "b", "c/d", "e.tar", "m", "sub/*.txt")


@pytest.mark.parametrize(
    "text",
    [
        "COPY . /",
        "COPY / /x",
        "COPY a ./ /x/",
        "ARG A\nCOPY $A /x",
        'COPY ["a b", "/x"]',
        "COPY a/**/b /x/",
        "COPY [[]x /x/",
        "COPY ../a /x",
        "RUN --mount=type=bind,target=/m true",
    ],
)
def test_what_is_not_clear_is_the_whole_context(text: str) -> None:
    assert used(f"COPY one /one\n{text}") == ()
