"""Lists and tables look as Docker's do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from jaula.cli import command_table, completion_script, events, help, system
from jaula.cli import image as image_commands
from jaula.cli.cli_errors import CliError
from jaula.cli.command_parser import Options, parse
from jaula.cli.containers import columns
from jaula.cli.images import pull_progress
from jaula.cli.output import list_output, text_table
from jaula.engine.containers import presets
from jaula.spec.confinement_profile import packaged_names

CONTAINER: dict[str, Any] = {
    "Id": "0123456789abcdef" * 4,
    "Names": ["/web", "/other/link"],
    "Image": "busybox",
    "Command": 'sh -c "a very long line"',
    "Created": 0,
    "State": "running",
    "Status": "Up 2 hours",
    "Ports": [],
    "Labels": {"com.x": "1"},
    "SizeRw": 2,
    "SizeRootFs": 4_270_000,
}


def test_columns_are_ten_wide_and_three_apart() -> None:
    assert text_table.aligned(["A\tB\tC", "x\tlonger than ten\ty"]) == (
        "A         B                 C\nx         longer than ten   y\n"
    )


def test_a_line_without_cells_ends_a_block() -> None:
    assert text_table.aligned(["aaaaaaaaaaaaaaa\tb", "none", "a\tb"]) == (
        "aaaaaaaaaaaaaaa   b\nnone\na         b\n"
    )


def test_a_container_is_formatted_as_in_docker() -> None:
    shown = {name: column[1](CONTAINER) for name, column in
             columns.columns(no_trunc=False).items()}  # fmt: skip
    assert shown["ID"] == "0123456789ab"
    assert shown["Names"] == "web"
    assert shown["Command"] == '"sh -c \\"a very long …"'
    assert shown["Size"] == "2B (virtual 4.27MB)"
    assert columns.columns(no_trunc=True)["ID"][1](CONTAINER) == CONTAINER["Id"]


@pytest.mark.parametrize(
    ("ports", "shown"),
    [
        ([], ""),
        ([(None, 80, None)], "80/tcp"),
        ([("0.0.0.0", 80, 8080), ("::", 80, 8080)], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([(None, 80, None), (None, 81, None), (None, 90, None)], "80-81/tcp, 90/tcp"),
        ([("0.0.0.0", 81, 9001), ("0.0.0.0", 80, 9000)], "0.0.0.0:9000-9001->80-81/tcp"),
    ],
)
def test_consecutive_ports_are_merged(
    ports: list[tuple[str | None, int, int | None]], shown: str
) -> None:
    rows = [
        {"IP": address, "PrivatePort": inside, "PublicPort": outside, "Type": "tcp"}
        for address, inside, outside in ports
    ]
    assert columns.ports(rows) == shown


def test_formats_select_columns() -> None:
    result = columns.columns(no_trunc=False)
    default = columns.DEFAULT
    assert (
        list_output.text([CONTAINER], result, default, "{{.Names}}\\t{{.State}}")
        == "web\trunning\n"
    )
    assert list_output.text([CONTAINER], result, default, "table {{.Names}}\\t{{.State}}") == (
        "NAMES     STATE\nweb       running\n"
    )
    assert list_output.text([CONTAINER], result, default, 'table {{.Label "com.x"}}') == "X\n1\n"
    assert '"Names":"web"' in list_output.text([CONTAINER], result, default, "json")
    assert '"Label"' not in list_output.text([CONTAINER], result, default, "json")
    with pytest.raises(CliError, match="can't evaluate field Nosuch"):
        list_output.text([CONTAINER], result, default, "{{.Nosuch}}")


def test_an_image_has_a_line_for_each_name() -> None:
    image = {"RepoTags": ["a:1", "h:5000/b:2"], "RepoDigests": ["a@sha256:ff"]}
    rows = [(row["Repository"], row["Tag"], row["Digest"])
            for row in image_commands._named(image, digests=True)]  # fmt: skip
    assert rows == [("a", "1", "sha256:ff"), ("h:5000/b", "2", "<none>")]
    assert next(image_commands._named({"RepoTags": None}, digests=False))["Repository"] == "<none>"


def test_disk_usage_is_summed() -> None:
    result = {
        "LayersSize": 300,
        "Images": [{"Containers": 1, "Size": 100, "SharedSize": 0}, {"Containers": 0, "Size": 200}],
        "Containers": [{"State": "running", "SizeRw": 5}, {"State": "exited", "SizeRw": 7}],
        "Volumes": None,
    }
    rows = {row["Type"]: row for row in system.summary(result)}
    assert (rows["Images"]["Total"], rows["Images"]["Active"]) == (2, 1)
    assert rows["Images"]["Reclaimable"] == 200
    assert (rows["Containers"]["Size"], rows["Containers"]["Reclaimable"]) == (12, 7)


def test_an_event_is_one_line() -> None:
    event = {
        "Type": "container",
        "Action": "oom",
        "Actor": {"ID": "ab", "Attributes": {"name": "web", "image": "i"}},
        "timeNano": 1_700_000_000_000_000_005,
    }
    line = events.line(event)
    assert ".000000005" in line
    assert line.endswith(" container oom ab (image=i, name=web)")


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("busybox", ("busybox", "latest")),
        ("h:5000/a/b:1", ("h:5000/a/b", "1")),
        ("h:5000/a", ("h:5000/a", "latest")),
        ("a@sha256:ff", ("a", "sha256:ff")),
    ],
)
def test_a_reference_is_split_for_the_api(image: str, parts: tuple[str, str]) -> None:
    assert pull_progress.split_reference(image) == parts


@pytest.mark.parametrize("words", sorted(command_table.commands()))
def test_every_page_has_its_parts_and_fits(words: str) -> None:
    page = help.page(command_table.load(words))
    assert page.startswith(f"Usage:  jaula {words}")
    assert "Examples:" in page
    assert "See also:" in page
    for line in page.splitlines():
        assert len(line) <= 100 or line.lstrip().startswith("$ ")


def test_the_overview_names_every_command() -> None:
    page = help.overview()
    for words in command_table.commands():
        if " " not in words:
            assert f"  {words} " in page


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_valid_shell(shell: str, tmp_path: Path) -> None:
    text = completion_script.script(shell)
    assert "cap-drop" in text
    assert "bootstrap" in text
    program = shutil.which(shell)
    if program is None:
        return
    file = tmp_path / "completion"
    file.write_text(text)
    done = subprocess.run([program, "-n", str(file)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def complete(line: str) -> list[str]:
    """Return bash's completions at the end of ``line``, which ends with an incomplete word."""
    words = line.split(" ")
    script = completion_script.script("bash") + (
        f"\nCOMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}\n"
        "_jaula\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_bash_completes_commands_flags_and_values() -> None:
    assert "run" in complete("jaula r")
    assert "bootstrap" in complete("jaula image b")
    assert complete("jaula run --cap-d") == ["--cap-drop"]
    assert complete("jaula run --pull ") == ["always", "missing", "never"]
    assert "--sig-proxy" in complete("jaula container run --sig")
    assert complete("jaula image bootstrap de") == ["debian"]


def test_bash_completes_profiles_and_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("own.toml", "own.txt"):
        (tmp_path / name).touch()
    (tmp_path / "owned").mkdir()
    monkeypatch.chdir(tmp_path)
    assert complete("jaula run --profile ow") == ["own.toml", "owned/"]
    assert complete("jaula create --profile ng") == ["nginx"]
    offered = complete("jaula run --profile ")
    assert {*presets.NAMES, *packaged_names()} <= set(offered)
    assert completion_script.PRESETS == presets.NAMES


def test_options_of_a_list_command_do_not_leak_between_runs() -> None:
    first: Options = parse(command_table.load("ps"), ["-a"])
    second: Options = parse(command_table.load("ps"), [])
    assert first.on("all")
    assert not second.on("all")


def test_bash_completes_a_group_that_is_a_command_as_well(tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(completion_script.script("bash"))

    def candidates(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f". {script}; jaula() {{ echo showcase; echo web; }};"
            f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _jaula; echo ${{COMPREPLY[@]}}"
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert candidates("jaula", "record", "s") == ["show"]
    assert candidates("jaula", "record", "w") == ["web"]
    assert candidates("jaula", "record", "web", "--fo") == ["--for", "--format"]
    assert candidates("jaula", "record", "show", "--f") == ["--format"]
    assert candidates("jaula", "container", "zz") == []
