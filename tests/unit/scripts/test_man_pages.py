"""The generated man pages: a page for each command, every flag, and escapes that roff reads."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from jaula.cli import command_table
from jaula.oci.runtime_main import COMMANDS as RUNTIME_COMMANDS
from jaula.oci.runtime_main import GLOBAL_FLAGS

ROOT = Path(__file__).parents[3]
GENERATOR = ROOT / "packaging/man/generate.py"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("man_generator", GENERATOR)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(generator: ModuleType) -> dict[str, str]:
    return dict(generator.pages())


def page_of(pages: dict[str, str], words: str) -> str:
    """The page of a command, links followed."""
    text = pages[f"man1/{'-'.join(('jaula', *words.split()))}.1"]
    return pages[text.split()[1]] if text.startswith(".so ") else text


def option(name: str) -> str:
    """A flag as roff source."""
    dashed = ("--" if len(name) > 1 else "-") + name
    return "\\fB" + dashed.replace("-", "\\-") + "\\fP"


@pytest.mark.parametrize("words", sorted([*command_table.commands(), *command_table.aliases()]))
def test_every_command_and_alias_has_a_page_with_every_flag(
    pages: dict[str, str], words: str
) -> None:
    page = page_of(pages, words)
    assert f"\\fBjaula {words}\\fP".replace("-", "\\-") in page
    for flag in command_table.load(words).flags:
        assert option(flag.name) in page
        if flag.short:
            assert option(flag.short) + ", " in page


def test_every_group_has_a_page_that_lists_its_commands(pages: dict[str, str]) -> None:
    for group in command_table.groups():
        page = pages[f"man1/jaula-{group}.1"]
        for words in command_table.commands():
            if words.startswith(group + " "):
                assert f"\\fB{words.split()[1]}\\fP".replace("-", "\\-") in page


def test_the_page_of_the_runtime_has_every_command_and_flag(
    generator: ModuleType, pages: dict[str, str]
) -> None:
    page = pages["man8/jaula-runtime.8"]
    flags = set(GLOBAL_FLAGS)
    for name in RUNTIME_COMMANDS:
        assert f".SS {name}\n" in page
        result = importlib.import_module(f"jaula.oci.commands.oci_{name}").FLAGS
        flags |= set(result)
        assert {key for key in result if len(key) > 1} <= set(generator.RUNTIME_HELP)
    for flag in flags:
        assert option(flag) in page
    described = {*generator.RUNTIME_HELP, *generator.RUNTIME_GLOBAL_HELP}
    assert described == {flag for flag in flags if len(flag) > 1}


def test_every_link_leads_to_a_page(pages: dict[str, str]) -> None:
    for text in pages.values():
        if text.startswith(".so "):
            assert not pages[text.split()[1]].startswith(".so ")


def test_every_reference_leads_to_a_page(pages: dict[str, str]) -> None:
    for text in pages.values():
        for name in re.findall(r"\\fB(jaula[a-z\\-]*)\\fP\(1\)", text):
            assert f"man1/{name.replace(chr(92), '')}.1" in pages


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\\b", "a\\eb"),
        ("--no-trunc", "\\-\\-no\\-trunc"),
        ("'it'", "\\(aqit\\(aq"),
        ('~/x "y" `z` ^', "\\(ti/x \\(dqy\\(dq \\(gaz\\(ga \\(ha"),
        ("5 µs", "5 \\[u00B5]s"),
    ],
)
def test_literal_text_is_escaped(generator: ModuleType, text: str, escaped: str) -> None:
    assert generator.literal(text) == escaped


def test_running_text_keeps_its_hyphens_but_not_those_of_flags(generator: ModuleType) -> None:
    assert generator.prose("a read-only mount (-v a:b)") == "a read-only mount (\\-v a:b)"


def test_no_line_of_text_is_a_request(generator: ModuleType) -> None:
    long = "x" * 70 + " .dockerignore 'quoted"
    assert generator.lines(long).splitlines()[1] == "\\&.dockerignore 'quoted"
    assert generator.lines(".so x") == "\\&.so x"


@pytest.mark.needs("groff")
def test_groff_renders_every_page_without_a_warning(pages: dict[str, str], tmp_path: Path) -> None:
    paths = []
    for name, text in pages.items():
        assert text.isascii()
        if not text.startswith(".so "):
            path = tmp_path / Path(name).name
            path.write_text(text)
            paths.append(str(path))
    done = subprocess.run(
        ["groff", "-ww", "-z", "-man", "-Tutf8", *paths], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("groff")
def test_an_example_is_rendered_literally(pages: dict[str, str]) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-P-c"],
        input=pages["man1/jaula-ps.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "$ jaula ps -a --format 'table {{.Names}}\\t{{.Status}}'" in done.stdout


@pytest.mark.slow
def test_the_wheel_installs_every_page(pages: dict[str, str], tmp_path: Path) -> None:
    code = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        installed = {
            name.partition("/data/share/man/")[2]: archive.read(name).decode("ascii")
            for name in archive.namelist()
            if "/data/share/man/" in name
        }
    assert installed == pages
