"""The drawing of the evidence panel, run by Node.js with a renderer that returns the text."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from jaula.features.web.static_files import DIRECTORY

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")

# Instead of preact: a template is its text, and a component that is a tag is left out.
RENDERER = """
export const html = (strings, ...values) =>
  strings.map((text, at) => text + show(values[at])).join('');
const show = value => Array.isArray(value) ? value.map(show).join('')
  : [null, undefined, false].includes(value) || typeof value === 'function' ? '' : String(value);
export const useEffect = () => {}, useRef = () => ({}), useState = value => [value, () => {}];
export const ErrorBox = () => '';
"""
LAYERS = [
    {"Layer": name, "Verdict": verdict, "Holds": 2, "Relaxed": relaxed, "Fails": 0, "Unknown": 0}
    for name, verdict, relaxed in (
        ("seccomp", "holds", 0),
        ("capabilities", "relaxed", 3),
        ("lsm", "holds", 0),
    )
]


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the panel's modules and stand-ins for those of a browser."""
    target = tmp_path_factory.mktemp("static")
    for name in ("evidence.js", "isolation.js"):
        shutil.copy(DIRECTORY / name, target)
    (target / "ui.js").write_text(RENDERER)
    (target / "api.js").write_text("export const get = () => new Promise(() => {});")
    (target / "i18n.js").write_text(
        "export const t = (key, values) => key + (values ? JSON.stringify(values) : '');"
    )
    (target / "package.json").write_text('{"type": "module"}')
    return target


def test_each_layer_has_its_rows_and_the_refusals_that_belong_to_it(static: Path) -> None:
    program = static / "program.js"
    properties = {
        "id": "c" * 64,
        "layers": LAYERS,
        "name": "web",
        "chosen": "lsm",
        "base": "map",
        "refusals": {"seccomp": 4, "apparmor": 1, "landlock": 2},
    }
    program.write_text(
        "import {Boxes} from './evidence.js';"
        f"process.stdout.write(Boxes({json.dumps(properties)}));"
    )
    done = subprocess.run(["node", str(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    held = [part.partition("</span>")[0] for part in done.stdout.split('<span class="held">')[1:]]
    assert held == [
        'evidence.rows{"count":2} · evidence.refused{"count":4}',
        "3 verdict.relaxed",
        'evidence.rows{"count":2} · evidence.refused{"count":3}',
    ]
