"""``jaula images --tree``, and ``--platform`` of commands for images."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jaula.cli.cli_errors import UsageError
from jaula.cli.command_parser import parse
from jaula.cli.command_table import load
from jaula.cli.images import platform_flag
from jaula.cli.images.image_tree import render


def manifest(name: str, digit: str, *containers: str, kind: str = "image") -> dict[str, Any]:
    os_name, architecture, *variant = name.split("/")
    stated = {"os": os_name, "architecture": architecture}
    return {
        "ID": "sha256:" + digit * 64,
        "Kind": kind,
        "Size": {"Content": 1000, "Total": 4000},
        "ImageData": {
            "Platform": stated | ({"variant": variant[0]} if variant else {}),
            "Containers": list(containers),
        },
    }


def image(*names: str, manifests: tuple[dict[str, Any], ...] = (), used: int = 0) -> dict[str, Any]:
    return {
        "Id": "sha256:" + "a" * 64,
        "RepoTags": list(names),
        "Size": 5000,
        "Containers": used,
        "Manifests": manifests,
    }


def test_platforms_are_printed_below_their_image() -> None:
    both = (
        manifest("linux/amd64", "1"),
        manifest("linux/arm64/v8", "2", "some container"),
        manifest("unknown/unknown", "3", kind="attestation"),
    )
    lines = list(render([image("b:1", "a:2", manifests=both), image()], 0))
    assert lines == [
        "IMAGE               ID             DISK USAGE   CONTENT SIZE   EXTRA",
        "a:2",
        "b:1                 aaaaaaaaaaaa          8kB            3kB   U    ",
        "├─ linux/amd64      111111111111          4kB            1kB        ",
        "└─ linux/arm64/v8   222222222222          4kB            1kB   U    ",
        "",
        "<untagged>          aaaaaaaaaaaa          5kB             0B        ",
        "",
    ]


def test_without_platforms_there_are_no_empty_lines() -> None:
    lines = list(render([image("b:1", used=1), image("a:1")], 0))
    assert [line.split()[0] for line in lines] == ["IMAGE", "a:1", "b:1"]
    assert lines[2].endswith("U    ")


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_terminal_has_a_legend_and_the_columns_that_fit(width: int) -> None:
    name = "registry.example.com/team/web:1"
    legend, titles, *rows = render([image(name, manifests=(manifest("linux/amd64", "1"),))], width)
    assert len(legend) == width and legend.endswith("Info ->  U In Use")
    assert ("EXTRA" in titles) == (width > 68)
    assert len(titles) <= width
    assert rows[0].startswith(name)


def test_no_image_is_a_table_without_rows() -> None:
    assert list(render([], 0)) == ["IMAGE   ID             DISK USAGE   CONTENT SIZE   EXTRA"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/arm64/v8", {"os": "linux", "architecture": "arm64", "variant": "v8"}),
        ("linux/amd64", {"os": "linux", "architecture": "amd64"}),
        ("s390x", {"os": "linux", "architecture": "s390x"}),
    ],
)
def test_a_platform_is_sent_as_json(text: str, expected: dict[str, str]) -> None:
    options = parse(load("history"), ["--platform", text, "x"])
    ((name, value),) = platform_flag.query(options)
    assert (name, json.loads(value)) == ("platform", expected)


def test_several_platforms_are_separated_by_commas_or_repeated() -> None:
    words = ["--platform", "linux/amd64,linux/arm64", "--platform", "s390x", "x"]
    pairs = platform_flag.queries(parse(load("rmi"), words), "platforms")
    assert [name for name, _ in pairs] == ["platforms"] * 3
    assert [json.loads(value)["architecture"] for _, value in pairs] == ["amd64", "arm64", "s390x"]
    assert platform_flag.queries(parse(load("rmi"), ["x"])) == []


@pytest.mark.parametrize("text", ["linux", "linux/", "/amd64", "a/b/c/d", "linux//v8"])
def test_an_invalid_platform_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid platform"):
        platform_flag.encode(text)
