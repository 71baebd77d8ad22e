"""Variables, quotes and escapes: where they are expanded, and where not.

The values in the first table are those of Docker 26.1, except ``${F%}``, which crashes its daemon.
"""

from __future__ import annotations

import pytest

from jaula.images.dockerfile.ast import Add, Copy, Env, Heredoc, MountKind, Run
from jaula.images.dockerfile.dockerfile_error import DockerfileError
from jaula.images.dockerfile.dockerfile_parser import parse_one
from jaula.images.dockerfile.expand import Substitution, expand

VARIABLES = {"A": "val", "E": "", "F": "a.b.c.d", "S": "x y"}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("plain", "plain"),
        ("$A", "val"),
        ("${A}b", "valb"),
        ("$A_B", ""),
        ("$A-b", "val-b"),
        ("$S", "x y"),
        ('"$A"', "val"),
        ("'$A'", "$A"),
        (r"\$A", "$A"),
        (r'"\$A"', "$A"),
        (r'"\x"', r"\x"),
        (r"\x", "x"),
        (r"a\ b", "a b"),
        (r'a"b"c', "abc"),
        (r"'\\'", r"\\"),
        (r'"\\"', "\\"),
        ("a\\", "a"),
        ("${A:-x}", "val"),
        ("${E:-x}", "x"),
        ("${E-x}", ""),
        ("${U-x}", "x"),
        ("${A:+x}", "x"),
        ("${E:+x}", ""),
        ("${E+x}", "x"),
        ("${U+x}", ""),
        ("${U:-${E:-$A}}", "val"),
        ('"${U:-a b}"', "a b"),
        ('${U:-"a b"}', "a b"),
        ("${U:-'a $A'}", "a $A"),
        (r"${U:-a\}b}", "a}b"),
        ("${U:-{x}}", "{x}"),
        ("${A:?bad}", "val"),
        ("${E?bad}", ""),
        ("$", "$"),
        ("x$ y", "x$ y"),
        ("$$", ""),
        ("$12x", "x"),
        ("$(date)", "$(date)"),
        ("`x`", "`x`"),
        ("${F#*.}", "b.c.d"),
        ("${F##*.}", "d"),
        ("${F%.*}", "a.b.c"),
        ("${F%%.*}", "a"),
        ("${F#a?}", "b.c.d"),
        ("${F#zz}", "a.b.c.d"),
        ("${F%}", "a.b.c.d"),
        (r"${F#\*}", "a.b.c.d"),
        ("${U#x}", ""),
        ("${F/./-}", "a-b.c.d"),
        ("${F//./-}", "a-b-c-d"),
        ("${F/b*c/}", "a..d"),
        ("${F//?./}", "d"),
        ("${F/$A/x}", "a.b.c.d"),
        (r"${S/ /\/}", "x/y"),
        ("#x", "#x"),
        ("~", "~"),
    ],
)
def test_a_word_expands_as_in_docker(word: str, value: str) -> None:
    assert Substitution(VARIABLES)(word) == value


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("${U:?bad}", "U: bad"),
        ("${U?}", "U: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be empty"),
        ("${}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${A", "syntax error: missing '}'"),
        ("${", "syntax error: missing '}'"),
        ("${A:-x", "syntax error: missing '}'"),
        ("${A/x}", "syntax error: missing '/' in ${}"),
        ("${A/x/y", "syntax error: missing '}'"),
        ("${A:x}", "unsupported modifier (:x) in substitution"),
        ("${A:=x}", "unsupported modifier (:=) in substitution"),
        ("${#A}", "unsupported modifier (A) in substitution"),
        ("${A^}", "unsupported modifier (^) in substitution"),
        ('"', "unexpected end of statement while looking for matching double-quote"),
        ("'", "unexpected end of statement while looking for matching single-quote"),
        (r"${A#\a}", r"invalid pattern (\a): invalid escape '\a'"),
        ("${A:-" * 40 + "}" * 40, "more than 32 nested substitutions"),
        ("${A#" + "x" * 5000 + "}", "a pattern has 5000 characters, the limit is 4096"),
    ],
)
def test_an_invalid_substitution_is_named_with_its_word(word: str, reason: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        Substitution(VARIABLES)(word)
    assert caught.value.reason.startswith('failed to process "')
    assert caught.value.reason.endswith(f'": {reason}')


def test_values_are_not_expanded_again() -> None:
    assert Substitution({"A": "$B 'x' \\", "B": "no"})("$A") == "$B 'x' \\"


def test_names_without_value_are_collected() -> None:
    put = Substitution(VARIABLES)
    put("$U ${V} ${W:-x} ${X%y} $A")
    assert list(put.unset) == ["U", "V", "X"]  # W has a default, so nothing is missing


def test_a_backtick_can_be_the_escape() -> None:
    put = Substitution(VARIABLES, "`")
    assert put(r"c:\$A`$A") == r"c:\val$A"


@pytest.mark.parametrize("word", ["${B//a/bbbbbbbbbbbbbbbb}", "${B//a/$B}", "$B" * 20])
def test_a_result_may_not_grow_without_bound(word: str) -> None:
    with pytest.raises(DockerfileError, match="the result is longer than"):
        Substitution({"B": "a" * (1 << 20)})(word)


def test_patterns_are_limited_in_work() -> None:
    with pytest.raises(DockerfileError, match="too many patterns"):
        Substitution({"B": "a" * (1 << 20)})("${B##*}" * 40)


# -- instructions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("ENV a=$A b='$A' $A=1", 'ENV a=val b="\\$A" val=1'),
        ("ENV a $S  b", 'ENV a="x y  b"'),
        ("LABEL $A=$S", 'LABEL val="x y"'),
        ("ARG a=$A b", "ARG a=val b"),
        ("EXPOSE $P/udp 90", None),
        ("WORKDIR /$A/b", "WORKDIR /val/b"),
        ("WORKDIR /$U/b", "WORKDIR //b"),
        ("USER $A:$U", "USER val:"),
        ("VOLUME /$A /b", "VOLUME /val /b"),
        ('VOLUME ["/$S"]', 'VOLUME "/x y"'),
        ("COPY --chown=$A --chmod=$A --exclude=$A $A/* $F", None),
        ("COPY \\$A /b", 'COPY "\\$A" /b'),
        ("ADD --checksum=$A $A /b", "ADD --checksum=val val /b"),
        ("RUN $A", "RUN $A"),
        ("RUN --mount=type=cache,target=/$A,id=$A x $A", None),
        ("CMD $A", "CMD $A"),
        ('ENTRYPOINT ["$A"]', 'ENTRYPOINT ["$A"]'),
        ("HEALTHCHECK CMD $A", "HEALTHCHECK CMD $A"),
        ('SHELL ["$A"]', 'SHELL ["$A"]'),
        ("ONBUILD RUN $A", "ONBUILD RUN $A"),
        ("MAINTAINER $A", "MAINTAINER $A"),
    ],
)
def test_values_are_put_in_where_docker_does(text: str, meant: str | None) -> None:
    special = {
        "EXPOSE $P/udp 90": "EXPOSE 80/udp 90",
        "RUN --mount=type=cache,target=/$A,id=$A x $A": (
            "RUN --mount=type=cache,target=/val,id=val x $A"
        ),
        "COPY --chown=$A --chmod=$A --exclude=$A $A/* $F": (
            "COPY --chown=val --chmod=val --exclude=val val/* a.b.c.d"
        ),
    }
    expanded = expand(parse_one(text), VARIABLES | {"P": "80"})
    assert expanded.source == (special[text] if meant is None else meant)


def test_a_variable_may_hold_several_ports() -> None:
    expanded = expand(parse_one("EXPOSE $P"), {"P": "80 90/udp"})
    assert expanded.source == "EXPOSE 80 90/udp"


def test_the_mounts_of_a_run_get_their_values() -> None:
    run = expand(
        parse_one("RUN --mount=type=$T,id=$I,uid=$N,target=/c x"),
        {"T": "cache", "I": "a,b", "N": "7"},
    )
    assert isinstance(run, Run)
    (mount,) = run.mounts
    assert (mount.kind, mount.id, mount.uid) == (MountKind.CACHE, "a,b", 7)


def test_a_heredoc_is_expanded_with_its_quotes_unless_its_name_is_quoted() -> None:
    copy = expand(parse_one("COPY <<A <<'B' /x/\n\"$A\" '$A' \\$A \\\\\nA\n$A\nB"), VARIABLES, "`")
    assert isinstance(copy, Copy)
    assert copy.heredocs == (
        Heredoc("A", "\"val\" 'val' $A \\\n", True),
        Heredoc("B", "$A\n", False),
    )


def test_a_heredoc_of_a_run_is_the_shells() -> None:
    run = parse_one("RUN <<EOF\n$A\nEOF")
    assert expand(run, VARIABLES) is not None
    assert expand(run, VARIABLES).source == run.source


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("WORKDIR $U", "WORKDIR has an empty value: $U"),
        ('VOLUME ["$U"]', "VOLUME specified can not be an empty string"),
        ("COPY a $U", "COPY has an empty destination: $U"),
        ("ENV $U=x", "ENV names can not be blank"),
        ("ENV $Q=x", "ENV: 'a=b' is not a valid name: it contains ="),
        ("EXPOSE $A", "invalid containerPort: val"),
        ("STOPSIGNAL $A", "invalid signal: val"),
        ("RUN --mount=type=$A,target=/x y", 'unsupported mount type "$A"'),
        ("RUN --mount=type=tmpfs,size=$A,target=/x y", "invalid value for size: val"),
    ],
)
def test_a_value_that_will_not_do_is_named_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        expand(parse_one(f"\n\n{text}"), VARIABLES | {"Q": "a=b"}, name="D")
    assert str(caught.value).startswith(f"D:3: {reason}")
    assert f"   3 | {text}" in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"V": "b C=d"}, "ENV A=b C=d"),
        ({"V": '"b"'}, "ENV A=b"),
        ({"V": "$V"}, "ENV A=V"),
        ({"V": "a\nb"}, "ENV A=a\\\\nb"),
        ({"V": ""}, "ENV A=''' '"),
    ],
)
def test_different_values_have_different_texts(one: dict[str, str], other: str) -> None:
    first, second = expand(parse_one("ENV A=$V"), one), expand(parse_one(other), {})
    assert isinstance(first, Env)
    assert isinstance(second, Env)
    assert (first.source == second.source) is (first.pairs == second.pairs)


def test_a_canonical_text_reads_back() -> None:
    for text in (
        'ENV A="x y" B=3.4 C="\\$V"',
        "COPY --from=a --link a b /c",
        "ADD --unpack=true a b",
    ):
        read = parse_one(text)
        again = parse_one(expand(read, {}).source)
        assert isinstance(again, Env | Copy | Add)
        assert expand(again, {}).source == expand(read, {}).source
