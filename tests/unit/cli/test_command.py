"""The parser reads argument lists as Docker's does."""

from __future__ import annotations

import pytest

from jaula.cli import command_parser, command_table
from jaula.cli.cli_errors import UsageError
from jaula.cli.command_parser import Command, Flag, parse


def command(*, interspersed: bool = True) -> Command:
    made = Command(
        "[OPTIONS] IMAGE",
        "Test",
        lambda options: 0,
        flags=(
            Flag("interactive", "i", "bool"),
            Flag("tty", "t", "bool"),
            Flag("detach", "d", "bool"),
            Flag("rm", "", "bool"),
            Flag("env", "e", "list"),
            Flag("name", "", "string"),
            Flag("memory", "m", "size"),
            Flag("cpus", "", "decimal"),
            Flag("count", "n", "int"),
        ),
        interspersed=interspersed,
    )
    made.path = "test"
    return made


def test_short_booleans_may_be_joined() -> None:
    options = parse(command(), ["-itd", "image"])
    assert [options.on(name) for name in ("interactive", "tty", "detach", "rm")] == [
        True, True, True, False,
    ]  # fmt: skip
    assert options.arguments == ["image"]


@pytest.mark.parametrize(
    "words",
    [["-e", "A=b"], ["-eA=b"], ["-e=A=b"], ["--env", "A=b"], ["--env=A=b"], ["-ite", "A=b"],
     ["-iteA=b"]],
)  # fmt: skip
def test_every_notation_of_a_value_is_parsed(words: list[str]) -> None:
    assert parse(command(), words).texts("env") == ["A=b"]


def test_a_boolean_takes_its_value_only_behind_an_equals_sign() -> None:
    options = parse(command(), ["--rm=false", "-t=false", "--interactive", "false"])
    assert not options.on("rm", True)
    assert not options.on("tty", True)
    assert options.on("interactive")
    assert options.arguments == ["false"]


def test_flags_end_at_the_image() -> None:
    options = parse(command(interspersed=False), ["-i", "image", "-t", "--rm"])
    assert options.arguments == ["image", "-t", "--rm"]
    assert not options.on("tty")


def test_flags_may_follow_arguments() -> None:
    options = parse(command(), ["a", "-i", "b"])
    assert options.arguments == ["a", "b"]
    assert options.on("interactive")


def test_two_dashes_end_the_flags() -> None:
    options = parse(command(), ["-i", "--", "-t", "--"])
    assert options.arguments == ["-t", "--"]


def test_a_single_dash_is_an_argument() -> None:
    assert parse(command(), ["-"]).arguments == ["-"]


def test_a_repeated_string_takes_the_last_and_a_list_takes_all() -> None:
    options = parse(command(), ["--name", "a", "--name=b", "-e", "X", "-e", "Y"])
    assert options.text("name") == "b"
    assert options.texts("env") == ["X", "Y"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["--nam"], "unknown flag: --nam (did you mean --name?)"),
        (["-z"], "unknown shorthand flag: 'z' in -z"),
        (["-iz"], "unknown shorthand flag: 'z' in -z"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["---x"], "bad flag syntax: ---x"),
        (["--=x"], "bad flag syntax: --=x"),
        (["-m", "xx"], 'invalid argument "xx" for "-m, --memory" flag: invalid size: \'xx\''),
        (
            ["--tty=xx"],
            (
                'invalid argument "xx" for "-t, --tty" flag: '
                'strconv.ParseBool: parsing "xx": invalid syntax'
            ),
        ),
        (
            ["-n", "1x"],
            (
                'invalid argument "1x" for "-n, --count" flag: '
                'strconv.ParseInt: parsing "1x": invalid syntax'
            ),
        ),
    ],
)
def test_a_bad_flag_is_reported_in_dockers_words(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(command(), words)
    assert caught.value.message == message
    assert caught.value.status == 125


def test_surrogates_and_empty_arguments_are_preserved() -> None:
    options = parse(command(), ["", "--name", "\udcff"])
    assert options.arguments == [""]
    assert options.text("name") == "\udcff"


@pytest.mark.parametrize("words", sorted(command_table.commands()))
def test_every_command_is_complete(words: str) -> None:
    result = command_table.load(words)
    assert result.path == words
    assert result.summary
    assert result.description
    assert result.examples
    assert result.see_also
    names = [flag.name for flag in result.flags]
    shorts = [flag.short for flag in result.flags if flag.short]
    assert len(set(names)) == len(names)
    assert len(set(shorts)) == len(shorts)
    assert all(flag.help and not flag.help.endswith(".") for flag in result.flags)
    for other in result.see_also:
        assert other in command_table.commands()


def test_every_alias_names_a_command() -> None:
    assert set(command_table.aliases().values()) <= set(command_table.commands())
    firsts = {words.split()[0] for words in command_table.commands() if " " in words}
    assert firsts == set(command_table.groups())


def test_a_wrong_number_of_arguments_is_refused() -> None:
    made = Command("A", "Test", lambda options: 0, min_args=1, max_args=1)
    made.path = "test"
    for words in ([], ["a", "b"]):
        with pytest.raises(UsageError, match="requires exactly 1 argument"):
            command_parser.check_arguments(parse(made, words))
