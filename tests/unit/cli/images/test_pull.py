"""Progress output on a terminal and elsewhere, and references for the API."""

from __future__ import annotations

import io
from typing import Any

import pytest

from jaula.cli.cli_errors import CliError
from jaula.cli.image import _canonical, _named
from jaula.cli.images import pull_progress

MESSAGES: list[dict[str, Any]] = [
    {"status": "Pulling from a/b", "id": "1"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aa"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "bb"},
    {"status": "Downloading", "progressDetail": {"current": 10, "total": 20},
     "progress": "[====]  10B/20B", "id": "aa"},
    {"status": "Pull complete", "progressDetail": {}, "id": "aa"},
    {"status": "Digest: sha256:0"},
]  # fmt: skip

BAR = "=" * 25 + ">" + " " * 25


class Terminal(io.StringIO):
    def __init__(self, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        monkeypatch.setattr(pull_progress, "_terminal_width", lambda output: width)

    def isatty(self) -> bool:
        return True


def test_without_a_terminal_each_change_is_one_line() -> None:
    out = io.StringIO()
    pull_progress.show_progress(MESSAGES, out)
    assert out.getvalue().splitlines() == [
        "1: Pulling from a/b",
        "aa: Pulling fs layer",
        "bb: Pulling fs layer",
        "aa: Pull complete",
        "Digest: sha256:0",
    ]


@pytest.mark.parametrize(
    ("width", "shown"),
    [(80, "aa: Downloading      10B/20B"), (120, f"aa: Downloading [{BAR}]      10B/20B")],
)
def test_on_a_terminal_the_line_of_a_layer_is_redrawn(
    monkeypatch: pytest.MonkeyPatch, width: int, shown: str
) -> None:
    out = Terminal(width, monkeypatch)
    pull_progress.show_progress(MESSAGES, out)
    assert f"\x1b[2A\x1b[2K\r{shown}\x1b[2B\r" in out.getvalue()
    assert out.getvalue().endswith("Digest: sha256:0\n")


def test_quiet_prints_nothing_and_raises_errors() -> None:
    out = io.StringIO()
    pull_progress.show_progress(MESSAGES, out, quiet=True)
    assert out.getvalue() == ""
    with pytest.raises(CliError, match="denied"):
        pull_progress.show_progress(
            [{"errorDetail": {"message": "denied"}, "error": "denied"}], out, quiet=True
        )


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("a", ("a", "latest")),
        ("h:5000/a", ("h:5000/a", "latest")),
        ("h:5000/a:1", ("h:5000/a", "1")),
        ("a@sha256:0", ("a", "sha256:0")),
    ],
)
def test_a_reference_is_split_for_the_api(image: str, found: tuple[str, str]) -> None:
    assert pull_progress.split_reference(image) == found


@pytest.mark.parametrize(
    ("image", "whole"),
    [
        ("a:1", "docker.io/library/a:1"),
        ("a/b:1", "docker.io/a/b:1"),
        ("docker.io/a:1", "docker.io/library/a:1"),
        ("docker.io/a/b:1", "docker.io/a/b:1"),
        ("localhost/a:1", "localhost/a:1"),
        ("q.io/a@sha256:0", "q.io/a@sha256:0"),
    ],
)
def test_a_pull_prints_the_full_reference(image: str, whole: str) -> None:
    assert _canonical(image) == whole


def test_an_image_has_a_row_for_each_name_and_digest() -> None:
    image = {
        "RepoTags": ["a:1", "a:2", "b:1"],
        "RepoDigests": ["a@sha256:0", "c@sha256:1"],
    }

    def rows(digests: bool) -> list[tuple[str, str, str]]:
        return [(r["Repository"], r["Tag"], r["Digest"]) for r in _named(image, digests=digests)]

    assert rows(True) == [
        ("a", "1", "sha256:0"),
        ("a", "2", "sha256:0"),
        ("b", "1", "<none>"),
        ("c", "<none>", "sha256:1"),
    ]
    assert rows(False) == [
        ("a", "1", "<none>"),
        ("a", "2", "<none>"),
        ("b", "1", "<none>"),
        ("c", "<none>", "<none>"),
    ]
    nameless = {"RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}
    assert [r["Repository"] for r in _named(nameless, digests=True)] == ["<none>"]
