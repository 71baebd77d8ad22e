"""An engine from which the operator has taken capabilities, as docs/systemd.md describes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.engine import PrivateEngine
from harness.images import busybox_entries, import_image
from jaula.kernel import capabilities
from jaula.security import capability_sets

DOCUMENT = Path(__file__).parents[3] / "docs/systemd.md"


def _taken() -> list[str]:
    """Return the capabilities that the document's drop-in takes."""
    section = DOCUMENT.read_text(encoding="utf-8").partition("## The sandbox of the engine")[2]
    lines = re.findall(r"^CapabilityBoundingSet=~(.*)$", section, re.M)
    return [name for line in lines for name in line.split()]


@dataclass
class NarrowedEngine(PrivateEngine):
    """An engine whose bounding set lacks capabilities."""

    def _prefix(self, own_network: bool) -> tuple[str, ...]:
        taken = ",".join("-" + name.removeprefix("CAP_").lower() for name in _taken())
        return (*super()._prefix(own_network), "setpriv", f"--bounding-set={taken}")


@pytest.fixture
def narrowed(engine: PrivateEngine) -> Iterator[PrivateEngine]:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    other = NarrowedEngine(engine.index + 1)
    other.start()
    try:
        yield other
    finally:
        other.discard()


def test_it_works_without_them_and_no_container_has_them_on_the_host(
    narrowed: PrivateEngine,
) -> None:
    assert len(_taken()) > 8
    image = import_image(narrowed, "narrowed", busybox_entries())
    done = narrowed.cli("jaula", "run", "--rm", image, "echo", "works")
    assert done.stdout == "works\n", done.stderr + narrowed.log_tail()
    host = ("run", "--rm", "--userns=host", "--privileged", image, "cat", "/proc/self/status")
    done = narrowed.cli("jaula", *host)
    bounding = capabilities.parse_status_masks(done.stdout)["bounding"]
    assert bounding
    assert not bounding & capability_sets.mask(_taken())
    done = narrowed.cli(
        "jaula", "run", "--rm", "--userns=host", "--cap-add", "SYS_TIME", image, "true"
    )
    assert done.returncode != 0
    assert "CAP_SYS_TIME is not available on this host" in done.stderr
    done = narrowed.cli("jaula", "run", "--rm", "--cap-add", "SYS_TIME", image, "true")
    assert done.returncode == 0, done.stderr
