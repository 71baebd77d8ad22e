"""The command line of jaula-runtime."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.oci.args import LIST, SWITCH, VALUE, parse

FLAGS = {"all": SWITCH, "a": "all", "memory": VALUE, "env": LIST}


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["--all", "id", "9"], ["id", "9"]),
        (["id", "--all", "9"], ["id", "9"]),
        (["id", "9", "-a"], ["id", "9"]),
        (["id", "--all=true", "-9"], ["id", "-9"]),
        (["id", "--all", "--", "--all"], ["id", "--all"]),
    ],
)
def test_flags_may_follow_an_argument(words: list[str], arguments: list[str]) -> None:
    options, rest = parse(words, FLAGS, "kill", anywhere=True)
    assert (options.on("all"), rest) == (True, arguments)


def test_a_value_may_follow_an_argument() -> None:
    options, rest = parse(["id", "--memory", "5m", "--env=A", "x"], FLAGS, "update", anywhere=True)
    assert (options.get("memory"), options.all("env"), rest) == ("5m", ["A"], ["id", "x"])
    with pytest.raises(InvalidRequest, match="flag needs an argument: -memory"):
        parse(["id", "--memory"], FLAGS, "update", anywhere=True)


def test_the_words_of_a_program_are_not_flags() -> None:
    options, rest = parse(["-a", "id", "--all", "--nope"], FLAGS, "exec")
    assert (options.on("all"), rest) == (True, ["id", "--all", "--nope"])


@pytest.mark.parametrize("anywhere", [True, False])
def test_an_unknown_flag_before_the_arguments_is_refused(anywhere: bool) -> None:
    with pytest.raises(InvalidRequest, match="flag provided but not defined: -nope"):
        parse(["--nope", "id"], FLAGS, "kill", anywhere=anywhere)
