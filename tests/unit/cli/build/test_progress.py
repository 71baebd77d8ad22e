"""Progress output of a build."""

from __future__ import annotations

import io
from typing import Any

import pytest

from jaula.features.build.cli.build_output import ProgressModel
from jaula.features.build.cli.progress_plain import PlainView
from jaula.features.build.cli.progress_tty import TtyProgress, printable


def step(number: int, **more: Any) -> dict[str, Any]:
    return {"jaula": {"stage": 0, "step": number} | more}


def started(number: int, text: str, name: str = "") -> dict[str, Any]:
    return step(number, state="started", text=text, total=3, name=name)


def text(number: int, text: str) -> dict[str, Any]:
    return step(number) | {"stream": text}


MESSAGES = [
    text(1, "Step 1/3 : FROM a\n"),
    started(1, "FROM a", "web"),
    text(1, " ---> 0123456789ab\n"),
    step(1, state="cached", ms=0),
    started(2, "RUN x", "web"),
    text(2, " ---> Running in a container\n"),
    text(2, "one\ntw"),
    started(3, "RUN y"),
    text(3, " ---> not ours\n"),
    text(2, "o\nlast"),
    step(2, state="done", ms=1500),
    step(3, state="failed", ms=10, error="no\nmore"),
    {"errorDetail": {"message": "no\nmore"}, "error": "no\nmore"},
]


def test_every_line_has_the_number_of_its_step() -> None:
    output = io.StringIO()
    model = ProgressModel(PlainView(output))
    model.run(MESSAGES)
    lines = output.getvalue().splitlines()
    without_times = [" ".join(w for w in line.split() if not w.startswith("0.0")) for line in lines]
    assert without_times == [
        "#1 [web 1/3] FROM a",
        "#1 CACHED",
        "#2 [web 2/3] RUN x",
        "#2 one",
        "#3 [3/3] RUN y",
        "#3 ---> not ours",
        "#2 two",
        "#2 last",
        "#2 DONE 1.5s",
        "#3 ERROR: no",
    ]
    assert model.error == "no\nmore"


def test_the_image_warnings_and_output_of_the_build() -> None:
    output = io.StringIO()
    model = ProgressModel(PlainView(output))
    model.take({"remark": {"rule": "StageNameCasing", "message": "m", "location": {"first": 4}}})
    model.take({"aux": {"ID": "sha256:1"}})
    model.take({"stream": "Successfully built 1\n"})
    assert output.getvalue() == "WARN: StageNameCasing: m (line 4)\nSuccessfully built 1\n"
    assert (model.image, model.error) == ("sha256:1", "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x07b\x00c", "abc"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b[2J\x1b[1;1Hx\x9b2J", "x2J"),
        ("tab\there", "tab     here"),
    ],
)
def test_a_line_for_a_terminal_has_no_control_characters(line: str, expected: str) -> None:
    assert printable(line) == expected


def test_an_overwritten_line_shows_its_last_text() -> None:
    output = io.StringIO()
    ProgressModel(PlainView(output)).run([started(1, "RUN"), text(1, "10 %\r50 %\rdone\r\n")])
    assert output.getvalue().endswith(" done\n")


def test_the_screen_shows_running_steps_with_their_last_lines() -> None:
    drawing = TtyProgress(io.StringIO())
    model = ProgressModel(drawing)
    model.run(MESSAGES[:5])
    for number in range(9):
        model.take(text(2, f"line {number}\n"))
    model.take(
        {"status": "Downloading", "id": "ab", "progressDetail": {"current": 1, "total": 4}}
        | step(2)
    )
    lines = drawing.lines(40)
    assert lines[0].startswith("[+] Building ") and lines[0].endswith("(1/3)")
    assert lines[1].startswith("\x1b[34m => CACHED [web 1/3] FROM a ")
    assert lines[2].startswith(" => [web 2/3] RUN x ") and lines[2].endswith("s")
    assert lines[3:] == [*(f" => => line {n}" for n in range(3, 9)), " => => ab: Downloading 25 %"]
    plain = [line.replace("\x1b[34m", "").replace("\x1b[0m", "") for line in lines]
    assert all(len(line) <= 40 for line in plain)


def test_the_screen_keeps_the_output_of_a_failed_step() -> None:
    drawing = TtyProgress(io.StringIO())
    ProgressModel(drawing).run(MESSAGES)
    lines = drawing.lines(80)
    assert not any("two" in line for line in lines)
    assert lines[-2].startswith("\x1b[31m => ERROR [3/3] RUN y")
    assert lines[-1] == " => =>  ---> not ours"
