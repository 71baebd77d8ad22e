"""The engine's service: its sandbox, and what the document says about each other directive."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
UNIT = PROJECT / "packaging/jaula.service"
DOCUMENT = (PROJECT / "docs/systemd.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.needs("systemd-analyze")


def _security(unit: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--json=short", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def _level(unit: Path) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"exposure level for \S+: (\d+\.\d)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


def _section() -> str:
    return DOCUMENT.partition("## The sandbox of the engine's service")[2]


def test_each_directive_is_set_or_has_a_reason() -> None:
    section = _section()
    unit = UNIT.read_text(encoding="utf-8")
    missing = []
    for row in _security(UNIT):
        for name in re.findall(r"(\w+)=", str(row["name"])):
            directive = "RootDirectory" if name == "RootImage" else name
            if not re.search(f"^{directive}=", unit, re.M) and f"`{directive}=`" not in section:
                missing.append(directive)
    assert not missing


def test_the_document_states_the_values_that_systemd_reports(tmp_path: Path) -> None:
    section = _section()
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True)
    if f"({version.stdout.split()[1]})" not in section:
        pytest.skip(f"the values are those of another version: {version.stdout.split()[1]}")
    stated = re.findall(r"\b\d\.\d\b", section)
    block = re.search(r"```ini\n\[Service\]\n(.*?)```", section, re.S)
    assert block is not None
    narrowed = tmp_path / "jaula.service"
    text = UNIT.read_text(encoding="utf-8")
    narrowed.write_text(text.replace("[Service]\n", f"[Service]\n{block[1]}", 1))
    assert stated == [f"{_level(UNIT):.1f}", f"{_level(narrowed):.1f}"]


@pytest.mark.parametrize("name", ["jaula.service", "jaula.socket"])
def test_systemd_accepts_the_units(tmp_path: Path, name: str) -> None:
    for unit in ("jaula.service", "jaula.socket"):
        text = (PROJECT / "packaging" / unit).read_text(encoding="utf-8")
        text = text.replace("/usr/bin/jaula", "/bin/true")
        text = re.sub(r"^Documentation=.*\n", "", text, flags=re.M)
        (tmp_path / unit).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
