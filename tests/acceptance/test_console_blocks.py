"""The console blocks of the documents show what the commands print.

``./test -m replay`` runs those of all pages, a test for each page. README.md is in every run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import console_blocks, leaks
from harness.certificates import Authority
from harness.console_blocks import Replay
from harness.engine import PROJECT, PrivateEngine

# Pages in Spanish have the blocks of the English ones, which a unit test compares.
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
DEFAULT = {"README.md"}


def _pages() -> Iterator[object]:
    for path in PAGES:
        blocks = [block for block in console_blocks.blocks(path) if not block.reason]
        if not blocks:
            continue
        name = str(path.relative_to(PROJECT))
        marks = [] if name in DEFAULT else [pytest.mark.replay]
        absent = [word for block in blocks for word in block.needs if not shutil.which(word)]
        if absent:
            marks.append(pytest.mark.skip(reason=f"not installed: {', '.join(absent)}"))
        yield pytest.param(path, id=name, marks=[*marks, pytest.mark.timeout(1800)])


@contextlib.contextmanager
def _network_namespace(name: str) -> Iterator[str]:
    """Make a network namespace: pages publish ports by fixed numbers."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def _movers(directory: Path) -> Iterator[tuple[str, ...]]:
    """Yield the flags of two engines that may move containers to each other."""
    authority = Authority(directory / "authority")
    for name, other, address in (
        ("a", "b", console_blocks.ADDRESS),
        ("b", "a", console_blocks.PEER_ADDRESS),
    ):
        policy = directory / f"policy-{name}.toml"
        policy.write_text(
            f'[certificate.engine-{other}]\naccess = "run"\nmigrate = true\n'
            'others = "control"\n[user.root]\naccess = "all"\n'
        )
        files = authority.sign(f"engine-{name}", usage="clientAuth,serverAuth")
        yield (
            *("-H", f"tcp://{address}", "--tlsverify", "--policy", str(policy)),
            *("--tlscacert", str(files / "ca.pem"), "--tlscert", str(files / "cert.pem")),
            *("--tlskey", str(files / "key.pem")),
        )


@pytest.mark.parametrize("path", [*_pages()])
def test_a_page_shows_what_its_commands_print(
    path: Path, worker_index: int, tmp_path: Path
) -> None:
    blocks = [block for block in console_blocks.blocks(path) if not block.reason]
    flags = tuple(word for block in blocks for word in block.engine)
    if any(block.policy for block in blocks):
        policy = tmp_path / "policy.toml"
        policy.write_text('[user.root]\naccess = "all"\n')
        flags = (*flags, "--policy", str(policy))
    movers = [*_movers(tmp_path)] if any(block.peer for block in blocks) else [()]
    with contextlib.ExitStack() as stack:
        network = ""
        if not any(block.host_network for block in blocks):
            network = stack.enter_context(_network_namespace(f"jlt{os.getpid()}pages"))
        engines = [
            stack.enter_context(
                leaks.nothing_left(
                    PrivateEngine(
                        (worker_index + 57 + 64 * number) % 250 + 1,
                        extra_flags=(*own, *flags),
                        netns=network,
                    )
                )
            )
            for number, own in enumerate(movers)
        ]
        replay = stack.enter_context(Replay(engines[0], tmp_path, *engines[1:]))
        differences = [difference for block in blocks for difference in replay.run(block)]
    assert not differences, "\n\n".join(differences)
