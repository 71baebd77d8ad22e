"""Stages that a target needs, their order, and the variables in them."""

from __future__ import annotations

import pytest

from jaula.images.dockerfile.apply_instructions import Scope
from jaula.images.dockerfile.ast import Run
from jaula.images.dockerfile.dockerfile_error import DockerfileError
from jaula.images.dockerfile.dockerfile_parser import parse
from jaula.images.dockerfile.stage_graph import Origin, Source, StageGraph, plan

STAGES = """\
FROM golang AS build
RUN go build
FROM build AS test
RUN go test
FROM alpine AS docs
RUN make docs
FROM scratch AS release
COPY --from=build /app /app
COPY --from=2 /docs /docs
COPY --from=nginx:1 /etc /etc
RUN --mount=from=test,target=/x --mount=type=cache,from=docs,target=/y z
FROM release
"""


def order(made: StageGraph) -> list[int]:
    return [planned.stage.index for planned in made.stages]


def refusal(text: str, **given: object) -> str:
    with pytest.raises(DockerfileError) as caught:
        plan(parse(text), **given)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("release", [0, 1, 2, 3]),
        ("RELEASE", [0, 1, 2, 3]),
        ("test", [0, 1]),
        ("docs", [2]),
        ("1", [0, 1]),
    ],
)
def test_only_stages_that_the_target_needs_are_planned(target: str, stages: list[int]) -> None:
    assert order(plan(parse(STAGES), target=target)) == stages


def test_every_origin_is_known() -> None:
    release = plan(parse(STAGES)).stages[3]
    assert release.base == Origin(Source.SCRATCH, "scratch")
    assert release.needs == (0, 1, 2)
    assert release.origins == {
        "build": Origin(Source.STAGE, "build", 0),
        "2": Origin(Source.STAGE, "2", 2),
        "nginx:1": Origin(Source.IMAGE, "nginx:1"),
        "test": Origin(Source.STAGE, "test", 1),
        "docs": Origin(Source.STAGE, "docs", 2),
    }


def test_a_named_context_takes_precedence_over_stages_and_images() -> None:
    made = plan(parse(STAGES), contexts=("build", "nginx:1", "alpine"))
    assert order(made) == [1, 2, 3, 4]
    assert made.stages[0].base == Origin(Source.CONTEXT, "build")
    assert made.stages[1].base == Origin(Source.CONTEXT, "alpine")
    assert made.stages[2].origins["nginx:1"] == Origin(Source.CONTEXT, "nginx:1")


def test_a_name_that_is_used_twice_means_the_stage_before() -> None:
    text = "FROM x AS a\nFROM y AS a\nFROM a AS b\nFROM z AS a\nCOPY --from=a x y\nFROM a\n"
    made = plan(parse(text))
    assert order(made) == [1, 3, 4]
    assert made.stages[-1].base == Origin(Source.STAGE, "a", 3)
    assert made.stages[1].origins == {"a": Origin(Source.STAGE, "a", 1)}
    assert plan(parse(text), target="b").stages[1].base == Origin(Source.STAGE, "a", 1)


def test_a_stage_of_its_own_name_as_base_is_an_image() -> None:
    assert plan(parse("FROM nginx AS nginx")).stages[0].base == Origin(Source.IMAGE, "nginx")


def test_a_copy_from_a_later_stage_puts_it_first() -> None:
    made = plan(parse("FROM a\nCOPY --from=late x y\nFROM b AS late\n"), target="0")
    assert order(made) == [1, 0]


def test_a_long_chain_is_planned() -> None:
    text = "FROM scratch AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\n" for i in range(999))
    assert order(plan(parse(text))) == list(range(1000))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "FROM a AS b\nCOPY --from=b x y",
            "Dockerfile:2: invalid from flag value b: it is the stage",
        ),
        (
            "FROM a AS b\nCOPY --from=0 x y",
            "Dockerfile:2: invalid from flag value 0: it is the stage",
        ),
        (
            "FROM a\nCOPY --from=9 x y",
            "Dockerfile:2: invalid stage index 9 (use a number from 0 to 0)",
        ),
        (
            "FROM a AS b\nCOPY --from=c x y\nFROM a AS c\nRUN --mount=from=b,target=/x y",
            "Dockerfile:1: circular dependency detected on stage: c",
        ),
        ("FROM $X", "Dockerfile:1: base name ($X) should not be blank"),
        ("FROM --platform=$X a", "Dockerfile:1: empty platform value from expression $X"),
        ("ARG A=${B:?no}\nFROM a", 'Dockerfile:1: failed to process "${B:?no}": B: no'),
        ('FROM "a', 'Dockerfile:1: failed to process ""a": unexpected end of statement'),
    ],
)
def test_a_planning_error_names_its_line(text: str, reason: str) -> None:
    assert refusal(text).startswith(reason)


def test_an_unknown_target_lists_the_existing_ones() -> None:
    text = "FROM a AS build\nFROM b AS release"
    assert refusal(text, target="relese") == (
        'target stage "relese" could not be found in Dockerfile (did you mean release?)'
    )
    assert refusal(text, target="7").endswith("(one of build, release)")


# -- arguments -----------------------------------------------------------------------------------


def test_arguments_before_the_first_stage_are_for_from_alone() -> None:
    text = "ARG T=1\nARG N=app:${T}\nFROM --platform=$BUILDPLATFORM $N AS x\nARG T\nENV a=$T b=$N\n"
    made = plan(
        parse(text), build_args={"T": "2"}, platform="linux/arm/v7", build_platform="linux/amd64"
    )
    (stage,) = made.stages
    assert (stage.base.name, stage.platform) == ("app:2", "linux/amd64")
    scope = Scope(made)
    sources = [scope.take(instruction).source for instruction in stage.instructions]
    assert sources == ["ARG T", 'ENV a=2 b=""']
    assert [(r.rule, r.location.first) for r in scope.warnings] == [("UndefinedVar", 5)]


def test_the_platform_is_available_as_arguments() -> None:
    made = plan(
        parse("FROM a AS final\nARG TARGETPLATFORM TARGETARCH TARGETVARIANT BUILDOS TARGETSTAGE"),
        platform="linux/arm/v7",
        build_platform="linux/amd64",
    )
    scope = Scope(made)
    scope.take(made.stages[0].instructions[0])
    assert scope.arguments() == {
        "TARGETPLATFORM": "linux/arm/v7",
        "TARGETARCH": "arm",
        "TARGETVARIANT": "v7",
        "BUILDOS": "linux",
        "TARGETSTAGE": "final",
    }


def taken(text: str, environment: tuple[str, ...] = (), **build_args: str) -> Scope:
    made = plan(parse(f"FROM a\n{text}"), build_args=build_args)
    scope = Scope(made, environment)
    for instruction in made.stages[0].instructions:
        scope.take(instruction)
    return scope


def test_an_argument_counts_from_its_line_on() -> None:
    assert taken("ENV x=$a\nARG a=1\nENV y=$a").environment() == {"x": "", "a": "1", "y": "1"}


def test_an_argument_of_the_client_overrides_a_default() -> None:
    assert taken("ARG a=1\nENV x=$a", a="2").environment() == {"a": "2", "x": "2"}
    assert taken("ARG a=1\nENV x=$a", a="").environment() == {"a": "", "x": ""}


def test_an_argument_of_the_client_without_arg_does_not_count() -> None:
    scope = taken("ENV x=$a", a="2")
    assert scope.environment() == {"x": ""}


def test_env_hides_an_argument_wherever_it_stands() -> None:
    assert taken("ARG a=1\nENV a=2\nENV x=$a").environment()["x"] == "2"
    assert taken("ENV a=2\nARG a=1\nENV x=$a").environment()["x"] == "2"
    assert taken("ARG a=1\nENV x=$a", ("a=3",)).environment()["x"] == "3"
    assert taken("ARG a=1\nENV a=2").arguments() == {}


def test_within_one_instruction_variables_keep_their_value() -> None:
    assert taken("ENV a=1\nENV a=2 b=$a\nENV c=$a").environment() == {"a": "2", "b": "1", "c": "2"}


def test_a_derived_stage_has_the_arguments_of_its_base() -> None:
    made = plan(parse("FROM a AS b\nARG v=1\nFROM b\nENV x=$v"))
    first, second = made.stages
    below = Scope(made)
    below.take(first.instructions[0])
    assert Scope(made, (), below).take(second.instructions[0]).source == "ENV x=1"
    assert Scope(made).take(second.instructions[0]).source == 'ENV x=""'


def test_proxies_need_no_arg_and_are_not_part_of_the_cache_key() -> None:
    scope = taken("RUN x", HTTP_PROXY="http://u:p@h")
    assert scope.environment() == {"HTTP_PROXY": "http://u:p@h"}
    assert scope.arguments() == {}
    assert taken("ARG HTTP_PROXY", HTTP_PROXY="h").arguments() == {"HTTP_PROXY": "h"}


def test_unused_build_arguments_are_reported() -> None:
    text = "ARG g\nFROM a\nARG s\nFROM b AS c\nARG other"
    given = dict.fromkeys(
        (
            "g",
            "s",
            "other",
            "x",
            "https_proxy",
            "TARGETARCH",
            "BUILDKIT_SYNTAX",
            "SOURCE_DATE_EPOCH",
        ),
        "1",
    )
    assert plan(parse(text), build_args=given).unused == ("s", "x")


@pytest.mark.parametrize(
    ("value", "reason"),
    [("a\0b", "contains a null byte"), ("a" * 131_072, "are longer than 131071")],
)
def test_a_value_that_execve_refuses_is_refused(value: str, reason: str) -> None:
    with pytest.raises(DockerfileError, match=f"^Dockerfile:2: .*{reason}"):
        taken("ARG a", a=value)


def test_the_growth_of_a_value_is_limited() -> None:
    with pytest.raises(DockerfileError, match="are longer than 131071"):
        taken("ENV a=0123456789\n" + "ENV a=$a$a\n" * 64)


# -- triggers ------------------------------------------------------------------------------------


def test_triggers_of_an_image_come_first_and_may_need_stages() -> None:
    text = "FROM x AS build\nFROM base\nRUN own"
    assert order(plan(parse(text))) == [1]
    made = plan(
        parse(text), triggers={"base": ["COPY --from=build /a /b", "RUN <<EOF\ntrigger\nEOF"]}
    )
    assert order(made) == [0, 1]
    last = made.stages[-1]
    assert [i.headline for i in last.instructions] == [
        "COPY --from=build /a /b",
        "RUN <<EOF",
        "RUN own",
    ]
    assert last.instructions[0].location.first == 2


def test_triggers_of_a_stage_run_in_the_derived_stage() -> None:
    made = plan(parse("FROM a AS b\nONBUILD RUN x\nFROM b AS c\nFROM c"))
    assert [
        [type(i) for i in planned.instructions if type(i) is Run] for planned in made.stages
    ] == [
        [],
        [Run],
        [],
    ]


def test_a_trigger_that_cannot_be_read_names_its_image() -> None:
    with pytest.raises(DockerfileError, match=r"^ONBUILD of base:1: unknown instruction: RUNN"):
        plan(parse("FROM base"), triggers={"base": ["RUNN x"]})


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("alpine", "alpine"),
        ("alpine:latest", "alpine"),
        ("docker.io/library/alpine", "alpine"),
        ("docker.io/library/alpine:latest", "alpine"),
        ("alpine:3", "alpine:3"),
        ("example.org/alpine", ""),
        ("alpine:4", ""),
    ],
)
def test_a_context_replaces_the_image_of_its_short_name(name: str, context: str) -> None:
    made = plan(
        parse(f"FROM {name}\nCOPY --from={name} a b\n"), contexts=("alpine", "alpine:3")
    ).stages[0]
    expected = Origin(Source.CONTEXT, context) if context else Origin(Source.IMAGE, name)
    assert made.base == made.origins[name] == expected
