"""Arbitrary texts are parsed or refused with one kind of error, and quickly."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.features.build.files.dockerignore import Dockerignore
from jaula.images.dockerfile.apply_instructions import Scope
from jaula.images.dockerfile.ast import Env
from jaula.images.dockerfile.dockerfile_error import DockerfileError
from jaula.images.dockerfile.dockerfile_parser import parse, parse_one
from jaula.images.dockerfile.dockerfile_words import quote
from jaula.images.dockerfile.expand import Substitution
from jaula.images.dockerfile.shell_glob import Glob
from jaula.images.dockerfile.stage_graph import plan

PIECES = st.sampled_from(
    [
        *("FROM a", "FROM ", " AS b", "\n", "\n", "\n", " ", "\t", "\\", "\\\n", "`", "#"),
        *("# escape=`", "RUN ", "COPY ", "ADD ", "ENV ", "ARG ", "LABEL ", "CMD ", "ENTRYPOINT "),
        *("SHELL ", "USER ", "HEALTHCHECK ", "EXPOSE ", "VOLUME ", "WORKDIR ", "STOPSIGNAL "),
        *("ONBUILD ", "MAINTAINER ", "<<EOF", "<<-'E'", "\nEOF\n", "\nE\n", "--", "--mount="),
        *("--from=", "--chown=", "--link", "type=cache", "target=/x", ",", "=", '"', "'", "$"),
        *("${", "}", ":-", "##", "%", "/", "*", "?", "[", "]", '["a"', '", "b"]', "0", "1-2"),
        *("NONE", "x", "é", "\ufeff", "\r", "\0", "\x85"),
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join), st.binary())


@given(TEXTS)
@example("FROM a\n" + "RUN <<A\n" * 50)
@example("FROM a\nENV " + "${a:-" * 10_000)
@example("FROM a\nCMD " + "[" * 100_000)
@example("FROM a\nONBUILD " * 1000)
@example("FROM a\nHEALTHCHECK --interval=" + "9" * 5000 + "h CMD x")
@example("FROM a\nRUN --mount=type=tmpfs,target=/x,size=" + "9" * 5000 + " x")
@example("FROM a\nEXPOSE " + "9" * 5000)
@example("FROM a\nSTOPSIGNAL RTMIN+" + "9" * 5000)
@example("FROM a\nCOPY --from=" + "9" * 5000 + " a b")
def test_a_text_is_read_or_one_kind_of_error_is_raised(text: str | bytes) -> None:
    try:
        dockerfile = parse(text)
        made = plan(dockerfile, build_args={"a": "$a"})
        for planned in made.stages:
            scope = Scope(made, ("b=c",))
            for instruction in planned.instructions:
                taken = scope.take(instruction)
                assert taken.source
                assert 1 <= taken.location.first <= taken.location.last <= len(dockerfile.lines)
    except DockerfileError as mistake:
        result = mistake
    else:
        return
    assert result.line >= 1
    assert str(result).startswith(f"Dockerfile:{result.line}: ")


@given(st.text(), st.dictionaries(st.sampled_from("abc"), st.text(max_size=50)))
def test_a_word_has_a_value_or_is_an_error(word: str, variables: dict[str, str]) -> None:
    try:
        assert isinstance(Substitution(variables)(word), str)
    except DockerfileError:
        pass  # the other half of the property


@given(st.text(alphabet="ab*?\\/}", max_size=12), st.text(alphabet="ab*", max_size=12))
def test_prefix_and_suffix_removal_agree_with_a_slow_matcher(pattern: str, value: str) -> None:
    try:
        glob = Glob(pattern)
    except DockerfileError:
        return
    ends = [n for n in range(len(value) + 1) if slow(pattern, value[:n])]
    starts = [n for n in range(len(value) + 1) if slow(pattern, value[n:])]
    assert glob.prefix(value, longest=False) == (min(ends) if ends else 0)
    assert glob.prefix(value, longest=True) == (max(ends) if ends else 0)
    assert glob.suffix(value, longest=False) == (len(value) - max(starts) if starts else 0)
    assert glob.suffix(value, longest=True) == (len(value) - min(starts) if starts else 0)


def slow(pattern: str, value: str) -> bool:
    if not pattern:
        return not value
    if pattern[0] == "*":
        return any(slow(pattern[1:], value[n:]) for n in range(len(value) + 1))
    if pattern[0] == "\\":
        return value[:1] == pattern[1] and slow(pattern[2:], value[1:])
    return bool(value) and pattern[0] in ("?", value[0]) and slow(pattern[1:], value[1:])


@given(st.text(min_size=1))
def test_a_quoted_value_reads_back(value: str) -> None:
    if any(char in value for char in "\n\r\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"):
        return  # such a value comes from the client, not from a Dockerfile
    env = parse_one(f"ENV A={quote(value)}")
    assert isinstance(env, Env)
    assert Substitution({})(env.pairs[0][1]) == value


@given(st.lists(st.text(alphabet="ab/*?[]^-\\!. ")), st.text(alphabet="ab/.*", min_size=1))
def test_an_ignore_file_is_read_or_refused(patterns: list[str], path: str) -> None:
    try:
        ignore = Dockerignore(patterns)
    except InvalidRequest:
        return
    assert ignore.excludes_path(path) in (True, False)
    above = path.rpartition("/")[0]
    if above and ignore.excludes_path(above) and not ignore.may_contain_exception(above):
        assert ignore.excludes_path(path)


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nRUN " + "x \\\n" * 250_000,
        "FROM a\nENV " + "a=b " * 250_000,
        "FROM a\nENV a=" + "\\" * 1_000_000,
        "FROM a\nENV a=" + "'" * 1_000_000,
        "FROM a\nRUN " + "--x=y " * 200_000,
        "FROM a\nRUN " + "<<A " * 200_000,
        "FROM a\nRUN " + "cat 1<<A" * 200_000,
        "FROM a\nRUN " + "<< A " * 200_000 + "\nA\n" * 200_000,
        "FROM a\nCMD [" + '"a",' * 250_000 + '"b"]',
        "\n" * 2_000_000,
        "#\n" * 1_000_000,
        "FROM a\n" + "COPY <<E /x\nE\n" * 9_999,
        "FROM a\nENV a=" + "${a#*x}" * 200_000,
        "FROM a\nEXPOSE " + "1-65535 " * 100_000,
        "FROM a\nCOPY " + "a " * 1_000_000 + "b",
    ],
    ids=lambda text: text[7:22],
)
def test_every_text_is_parsed_quickly(text: str) -> None:
    begin = time.process_time()
    try:
        made = plan(parse(text))
        scope = Scope(made, ("a=" + "b" * 100_000,))
        for instruction in made.stages[0].instructions:
            scope.take(instruction)
    except DockerfileError:
        pass  # once it exists
    assert time.process_time() - begin < 15
