"""Hints for mistyped names: close names only."""

from __future__ import annotations

import pytest

from jaula.cli import command_table, suggestion
from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.main import main


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [
        ("web", "web", 0),
        ("wbe", "web", 1),
        ("we", "web", 1),
        ("webb", "web", 1),
        ("wab", "web", 1),
        ("imgaes", "images", 1),
        ("", "web", 3),
        ("abcdef", "fedcba", 4),
    ],
)
def test_edits_are_counted_up_to_the_limit(one: str, other: str, edits: int) -> None:
    assert suggestion.distance(one, other, 3) == edits
    assert suggestion.distance(other, one, 3) == edits


@pytest.mark.parametrize(
    ("word", "names", "close"),
    [
        ("wbe", ["web", "database"], ["web"]),
        ("imgaes", ["images", "image", "import"], ["images", "image"]),
        ("database", ["web"], []),
        ("db", ["da", "dc"], []),
        ("prnue", ["prune", "run"], ["prune"]),
        ("Web", ["web"], ["web"]),
        ("network", ["network"], []),
    ],
)
def test_only_close_names_are_named(word: str, names: list[str], close: list[str]) -> None:
    assert suggestion.close(word, names) == close


def test_a_flag_may_be_abbreviated_in_the_hint() -> None:
    assert suggestion.flags("mem", ["memory", "memory-swap", "name"]) == ["memory", "memory-swap"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["imgaes"], "Did you mean images or image?"),
        (["image", "lss"], "Did you mean image ls?"),
        (["run", "--nmae", "x"], "(did you mean --name?)"),
        (["help", "netwoks"], "Did you mean networks or network?"),
    ],
)
def test_commands_flags_and_topics_have_hints(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) != 0
    assert hint in capsys.readouterr().err


def test_a_word_that_is_close_to_nothing_has_no_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zzzzzzzzzz"]) == 1
    assert "Did you mean" not in capsys.readouterr().err


OBJECTS = {
    "container": ["web", "database"],
    "image": ["busybox", "registry.example/app:1.0"],
    "network": ["shop"],
    "volume": ["data-1"],
    "object": ["web", "busybox", "shop", "data-1"],
}


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("No such container: wbe", "web"),
        ("No such image: busybx:latest", "busybox"),
        ("No such image: registry.example/ap:1.0", "registry.example/app:1.0"),
        ("network shpo not found", "shop"),
        ("get data-2: no such volume", "data-1"),
        ("No such object: bsuybox", "busybox"),
        ("No such container: zzzzzz", ""),
        ("page not found", ""),
    ],
)
def test_objects_of_the_engine_have_hints_on_a_terminal(
    message: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(suggestion, "_names", lambda kind, _: OBJECTS[kind])
    monkeypatch.setattr(suggestion, "isatty", lambda _: True)
    suggestion.print_object_hint(EngineError(404, message), "unix:///x")
    assert capsys.readouterr().err == (f"Did you mean {hint}?\n" if hint else "")
    suggestion.print_object_hint(EngineError(409, message), "unix:///x")
    monkeypatch.setattr(suggestion, "isatty", lambda _: False)
    suggestion.print_object_hint(EngineError(404, message), "unix:///x")
    assert capsys.readouterr().err == ""


def test_a_hint_is_no_second_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise CliError("the engine has ended")

    monkeypatch.setattr("jaula.cli.client.api_client.Client.get", fail)
    monkeypatch.setattr("jaula.cli.client.api_client.Client.__init__", lambda *_: None)
    monkeypatch.setattr(suggestion, "isatty", lambda _: True)
    suggestion.print_object_hint(EngineError(404, "No such container: wbe"), "unix:///x")
    assert capsys.readouterr().err == ""


def test_no_command_is_close_to_itself() -> None:
    for words in command_table.commands():
        assert words not in suggestion.close(words, command_table.commands())
