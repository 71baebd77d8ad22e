"""The bounds of the text of one build."""

from __future__ import annotations

import time

import pytest

from jaula.images.dockerfile import budget as budgets
from jaula.images.dockerfile.apply_instructions import Scope, apply, change
from jaula.images.dockerfile.budget import BuildBudget
from jaula.images.dockerfile.dockerfile_error import DockerfileError
from jaula.images.dockerfile.dockerfile_parser import parse
from jaula.images.dockerfile.expand import Substitution
from jaula.images.dockerfile.stage_graph import plan
from jaula.spec.image_documents import ImageConfig


def _run(text: str, budget: BuildBudget | None = None) -> ImageConfig:
    """Expand and apply all instructions, as a build does."""
    budget = budget or BuildBudget()
    graph = plan(parse(text), budget=budget)
    config = ImageConfig()
    for planned in graph.stages:
        scope = Scope(graph, (), None, budget)
        for instruction in planned.instructions:
            config = change(config, scope.take(instruction))
    return config


@pytest.mark.parametrize("protocols", [("tcp",), ("udp", "sctp"), ("tcp", "udp", "sctp")])
def test_ports_are_bounded_for_the_whole_build(protocols: tuple[str, ...]) -> None:
    line = "EXPOSE " + " ".join(f"1-65535/{protocol}" for protocol in protocols) + "\n"
    fitting = 3 // len(protocols)
    assert _run("FROM scratch\n" + line * fitting).exposed_ports
    with pytest.raises(DockerfileError, match="EXPOSE instructions of the build have more than"):
        _run("FROM scratch\n" + line * (fitting + 1))


def test_ports_of_several_stages_count_together() -> None:
    ports = "EXPOSE 1-65535/tcp 1-65535/udp\n"
    with pytest.raises(DockerfileError, match=r"Dockerfile:4: .*more than 196605 ports"):
        _run(f"FROM scratch AS a\n{ports}FROM a\n{ports}")


@pytest.mark.parametrize(
    "form", ["${A//x/}", "${A/x/y}", "${A#x*}", "${A##*x}", "${A%x*}", "${A%%*x}"]
)
def test_patterns_are_bounded_for_the_whole_build(form: str) -> None:
    text = "FROM scratch\nARG A=" + "a" * 100_000 + "\n"
    _run(text + f"LABEL b={form}\n" * 30)
    with pytest.raises(DockerfileError, match="too many patterns"):
        _run(text + f"LABEL b={form}\n" * 60)


def test_a_long_pattern_spends_more_than_a_short_one() -> None:
    budget = BuildBudget()
    long = Substitution({"A": "a" * 80_000}, budget=budget)
    long("${A//" + "a?" * 1000 + "b/}")
    with pytest.raises(DockerfileError, match="too many patterns"):
        long("${A//" + "a?" * 1000 + "b/}")


def test_results_are_bounded_for_the_whole_build() -> None:
    text = "FROM scratch\nARG A=" + "a" * 130_000 + "\n"
    long = "LABEL b=" + "${A}" * 60 + "\n"
    _run(text + long * 4)
    with pytest.raises(DockerfileError, match="longer than 33554432 characters"):
        _run(text + long * 5)


def test_the_values_before_the_first_stage_are_bounded() -> None:
    doubling = "ARG A=0123456789abcdef\n" + "ARG A=${A}${A}\n" * 60
    with pytest.raises(DockerfileError, match="longer than 8388608 characters"):
        _run(doubling + "FROM scratch\n")
    long = "ARG A=" + "a" * 1_000_000 + "\n" + "ARG B=${A}${A}${A}${A}\n" * 40
    with pytest.raises(DockerfileError, match="longer than 33554432 characters"):
        _run(long + "FROM scratch\n")


def test_steps_of_all_platforms_are_bounded() -> None:
    budget = BuildBudget()
    budget.steps(budgets.MAX_STEPS)
    with pytest.raises(DockerfileError, match="more than 20000 steps"):
        budget.steps(1)


def test_entries_of_the_configuration_are_bounded() -> None:
    budget = BuildBudget()
    budget.entries(budgets.MAX_ENTRIES)
    with pytest.raises(DockerfileError, match="too many steps for a configuration of this size"):
        budget.entries(1)


def _compute(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_processor_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "MAX_SECONDS", 0.01)
    budget = BuildBudget()
    with pytest.raises(DockerfileError, match="seconds of processor time"), budget.timed():
        _compute(0.02)
    with pytest.raises(DockerfileError, match="seconds of processor time"), budget.timed():
        pytest.fail("work without a budget")


def test_a_wait_spends_no_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "MAX_SECONDS", 0.05)
    budget = BuildBudget()
    with budget.timed():
        time.sleep(0.1)


def test_changes_of_a_commit_have_one_budget() -> None:
    with pytest.raises(Exception, match="EXPOSE instructions of the build"):
        apply(ImageConfig(), ["EXPOSE 1-65535/tcp 1-65535/udp"] * 2)


def _cost(text: str) -> float:
    began = time.process_time()
    try:
        _run(text)
    except DockerfileError:
        pass
    return time.process_time() - began


N = 4000
SHAPES = {
    "comments": lambda n: "FROM scratch\n" + "# a\n" * n * 4,
    "blank lines": lambda n: "FROM scratch\n" + "\n" * n * 10,
    "continuations": lambda n: "FROM scratch\nLABEL a=b" + "\\\n " * n * 4,
    "words": lambda n: "FROM scratch\nLABEL " + "a=b " * n * 4,
    "quotes": lambda n: "FROM scratch\nLABEL a=" + "'b'\"c\"" * n * 4,
    "escapes": lambda n: "FROM scratch\nLABEL a=" + "\\a" * n * 4,
    "variables": lambda n: "FROM scratch\nLABEL a=" + "$b${c:-d}" * n,
    "nested": lambda n: "FROM scratch\nLABEL a=" + "${b:-" * n + "}" * n,
    "flags": lambda n: "FROM scratch\nRUN " + "--mount=type=tmpfs,target=/a " * n + "true\n",
    "flags that are unknown": lambda n: "FROM scratch\nCOPY " + "--x=y " * n * 4 + "a b\n",
    "a list": lambda n: "FROM scratch\nCMD [" + '"a",' * n * 4 + '"b"]\n',
    "lists of lists": lambda n: "FROM scratch\nCMD " + "[" * n * 4 + "]" * n * 4 + "\n",
    "ports": lambda n: "FROM scratch\nEXPOSE " + "1 " * n * 4 + "\n",
    "volumes": lambda n: "FROM scratch\nVOLUME " + "/a " * n * 4 + "\n",
    "here-documents": lambda n: "FROM scratch\nRUN <<A\n" + "b\n" * n * 4 + "A\n",
    "a here-document without an end": lambda n: "FROM scratch\n" + "RUN <<A\n" * n,
    "sources": lambda n: "FROM scratch\nCOPY " + "a " * n * 4 + "b/\n",
    "stages": lambda n: "".join(f"FROM scratch AS a{i}\n" for i in range(n // 8)),
    "arguments": lambda n: (
        "".join(f"ARG A{i}=${{A{i - 1}}}\n" for i in range(n)) + "FROM scratch\n"
    ),
    "triggers": lambda n: "FROM scratch\n" + "ONBUILD RUN true\n" * n,
    "one long line": lambda n: "FROM scratch\nRUN " + "a" * n * 40 + "\n",
    "paths": lambda n: "FROM scratch\nWORKDIR " + "/a/.." * n * 4 + "\n",
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_processor_time_of_a_text_grows_with_its_bytes(name: str) -> None:
    shape = SHAPES[name]
    small = min(_cost(shape(N // 4)) for _ in range(3))
    large = min(_cost(shape(N)) for _ in range(3))
    # four times the bytes: linear work takes four times as long, quadratic work sixteen times
    assert large < max(small, 0.004) * 10, (small, large)
