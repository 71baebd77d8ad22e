"""The console blocks of the documents: their form, their illustrations, and the comparison."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness import console_blocks
from harness.console_blocks import BlockError, blocks, line_matches, output_matches
from harness.engine import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
SPANISH = {PROJECT / "README.es.md": PROJECT / "README.md"} | {
    PROJECT / "docs/es/metodo.md": PROJECT / "docs/method.md"
}
ILLUSTRATIONS = 24  # blocks that are not replayed: a lower number is better


def test_every_block_is_replayed_or_has_a_reason() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    illustrations = [f"{block}: {block.reason}" for block in found if block.reason]
    assert len(illustrations) <= ILLUSTRATIONS, "\n".join(illustrations)
    assert len(found) - len(illustrations) > 25


@pytest.mark.parametrize("path", [*PAGES, *SPANISH], ids=lambda path: path.name)
def test_a_command_of_jaula_is_in_a_console_block(path: Path) -> None:
    """An example outside of such a block is not run by any test."""
    loose = []
    fence = ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if mark := re.match(r"```(\w*)", line):
            fence = "" if fence else mark[1] or "text"
        example = fence in ("sh", "bash") or (not fence and line.startswith("    "))
        if example and re.match(r"\s*(?:[$#] )?jaula ", line):
            loose.append(f"{path.name}:{number}: {line.strip()}")
    assert not loose, "\n".join(loose)


@pytest.mark.parametrize(("spanish", "english"), SPANISH.items(), ids=lambda path: path.name)
def test_a_page_in_spanish_has_the_blocks_of_the_english_one(spanish: Path, english: Path) -> None:
    def steps(path: Path) -> list[tuple[str, list[str]]]:
        return [
            (re.sub(r"(?<=\S) {2,}#.*", "", step.command), step.expected)
            for block in blocks(path)
            for step in block.steps
        ]

    assert steps(spanish) == steps(english)


def page(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "page.md"
    path.write_text(text)
    return path


def test_a_block_has_commands_output_and_what_prepares_it(tmp_path: Path) -> None:
    text = """Text:

<!-- replay: setup echo a > b -->
<!-- replay: rows -->

```console
# cat <<'END'
> one
> END
one
$ jaula ps
```
"""
    (block,) = blocks(page(tmp_path, text))
    assert [(step.command, step.expected) for step in block.steps] == [
        ("cat <<'END'\none\nEND", ["one"]),
        ("jaula ps", []),
    ]
    assert (block.setup, block.rows, block.reason) == (["echo a > b"], True, "")
    assert str(block) == "page.md:6"


def test_comments_describe_the_machine_of_a_page(tmp_path: Path) -> None:
    text = """<!-- replay: peer -->
<!-- replay: host network -->
<!-- replay: needs criu -->
<!-- replay: engine --cri --log-level 'debug' -->
```console
# jaula ps
```
"""
    (block,) = blocks(page(tmp_path, text))
    assert (block.peer, block.host_network, block.needs) == (True, True, ["criu"])
    assert block.engine == ["--cri", "--log-level", "debug"]


class Played(console_blocks.Replay):
    """A replay whose commands print and return what the test says."""

    def __init__(self, status: int, output: str) -> None:
        self._answer = subprocess.CompletedProcess[str]([], status, output)

    def _shell(
        self, command: str, timeout: float = console_blocks.TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        return self._answer

    def _documented(self, line: str) -> str:
        return line


@pytest.mark.parametrize(
    ("document", "status", "output", "right"),
    [
        ("", 0, "anything", True),
        ("", 1, "", False),
        ("...\n", 0, "anything", True),
        ("...\n", 1, "an error", False),
        ("...\n# echo $?\n", 1, "an error", True),
        ("81 rows, 1 FAILS\n", 1, "81 rows, 1 FAILS", True),
        ("81 rows, 1 FAILS\n", 0, "81 rows", False),
        ("81 rows\n", 0, "verify: 10s\n81 rows", True),
        ("81 rows\n", 0, "verify: error\n81 rows", False),
    ],
)
def test_a_command_whose_output_is_left_out_must_succeed(
    document: str, status: int, output: str, right: bool, tmp_path: Path
) -> None:
    (block,) = blocks(page(tmp_path, f"```console\n# jaula verify web\n{document}```\n"))
    del block.steps[2:]
    found = [line for line in Played(status, output).run(block) if "jaula verify" in line]
    assert (not found) is right


@pytest.mark.parametrize(
    "text",
    [
        "<!-- replay: sometimes -->\n```console\n# ls\n```\n",
        "<!-- not replayed: -->\n```console\n# ls\n```\n",
        "<!-- a remark -->\n```console\n# ls\n```\n",
        "```console\noutput\n# ls\n```\n",
        "```console\n```\n",
        "```console\n# ls\n",
        "* item\n\n  ```console\n  # ls\n  ```\n",
    ],
)
def test_a_block_of_another_form_is_an_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(BlockError):
        blocks(page(tmp_path, text))


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("b8785a94fa33  busybox  Up 2 seconds", "0079c32f482d   busybox   Up About a minute"),
        ("sha256:9b5a06b3c8cf", "sha256:" + "0" * 64),
        ("516KiB / 64MiB", "1.2MiB / 64MiB"),
        ("2026-11-24T17:50:24.588Z start", "2027-01-01T00:00:00Z start"),
        ("/proc/19181/status", "/proc/7/status"),
        ("httpd(19181,mnt)", "httpd(77,mnt)"),
        ("address 10.0.0.7", "address 172.30.4.5"),
        ("a ... z", "a b c z"),
        ("5 months ago", "4 weeks ago"),
    ],
)
def test_what_changes_from_run_to_run_is_equal(expected: str, actual: str) -> None:
    assert line_matches(expected, actual)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("81 rows: 81 holds", "81 rows: 80 holds, 1 FAILS"),
        ("true 137", "true 1"),
        ("127.0.0.1:8080", "0.0.0.0:8080"),
        ("web", "webs"),
        ("000000000000000 a", "00000000a80425fb a"),
        ("a ... z", "a b c"),
    ],
)
def test_a_difference_is_a_difference(expected: str, actual: str) -> None:
    assert not line_matches(expected, actual)


def test_lines_may_be_left_out_where_the_document_says_so() -> None:
    assert output_matches(["a", "...", "d"], ["a", "b", "c", "d"])
    assert output_matches(["..."], [])
    assert not output_matches(["a", "d"], ["a", "b", "d"])
    assert not output_matches([], ["a"])


def test_a_normalized_line_has_single_blanks() -> None:
    assert console_blocks.normalized("  a \t b  ") == "a b"
