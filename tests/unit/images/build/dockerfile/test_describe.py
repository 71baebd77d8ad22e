"""Documents about a Dockerfile: targets, parameters, warnings."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from jaula.images.dockerfile import describe
from jaula.images.dockerfile.budget import BuildBudget
from jaula.images.dockerfile.dockerfile_error import DockerfileError
from jaula.images.dockerfile.dockerfile_parser import parse
from jaula.images.dockerfile.stage_graph import plan
from jaula.spec.image_documents import ImageConfig

TEXT = """\
# BASE the base image
ARG BASE=busybox
ARG UNUSED=x
# tools makes the tool
# and more
FROM ${BASE} AS tools
# WHO is greeted

# OTHER is described
ARG WHO=you OTHER
RUN --mount=type=secret,id=tok,required=true --mount=type=ssh echo $WHO
FROM --platform=linux/amd64 scratch AS alone
ARG NOT_OF_THE_TARGET
FROM tools
RUN --mount=type=secret,id=tok --mount=type=secret,id=two true
"""


def graph(text: str, **options: Any) -> Any:
    return plan(parse(text), **options)


def lines(document: dict[str, Any]) -> int:
    return int(document["location"]["ranges"][0]["start"]["line"])


def test_targets_are_listed_with_their_descriptions() -> None:
    document = describe.targets(parse(TEXT))
    known = [{k: v for k, v in t.items() if k != "location"} for t in document["targets"]]
    assert known == [
        {"name": "tools", "description": "makes the tool", "base": "${BASE}"},
        {"name": "alone", "base": "scratch", "platform": "linux/amd64"},
        {"default": True, "base": "tools"},
    ]
    assert [lines(target) for target in document["targets"]] == [6, 12, 14]
    assert b64decode(document["sources"][0]).decode().splitlines() == TEXT.splitlines()


def test_an_outline_has_the_parameters_of_the_target_and_its_stages() -> None:
    document = describe.outline(graph(TEXT, build_args={"WHO": "me"}))
    arguments = [(a["name"], a.get("value"), a.get("description")) for a in document["args"]]
    assert arguments == [
        ("BASE", "busybox", "the base image"),
        ("WHO", "me", None),  # an empty line ends the comment
        ("OTHER", None, "is described"),
    ]
    assert [(s["name"], s.get("required"), lines(s)) for s in document["secrets"]] == [
        ("tok", True, 11),
        ("two", None, 15),
    ]
    assert [agent["name"] for agent in document["ssh"]] == ["default"]
    alone = describe.outline(graph(TEXT, target="alone"))
    assert [a["name"] for a in alone["args"]] == ["NOT_OF_THE_TARGET"]
    assert alone["name"] == "alone" and "secrets" not in alone


def rules(text: str, config: ImageConfig | None = None) -> list[str]:
    found = describe.all_warnings(graph(text), lambda name: config, BuildBudget())
    return [warning.rule for warning in found]


def test_variables_that_are_not_set_are_warnings_if_the_base_is_known() -> None:
    text = "FROM a AS b\nENV X=$KNOWN$OWN\nFROM b\nLABEL l=$X$OTHER\n"
    assert rules(text, ImageConfig(env=("KNOWN=1",))) == ["UndefinedVar"] * 2
    assert rules(text) == []
    assert rules("FROM scratch\nLABEL l=$OTHER\n") == ["UndefinedVar"]
    assert rules("# check=skip=UndefinedVar\nFROM scratch\nLABEL l=$OTHER\n") == []
    assert rules("FROM scratch\nMAINTAINER me\n") == ["MaintainerDeprecated"]


def test_warnings_and_an_error_have_their_lines() -> None:
    text = "FROM scratch\nMAINTAINER me\n"
    document = describe.lint("name", text, graph(text).warnings)
    (warning,) = document["warnings"]
    assert warning["url"].endswith("/rule/maintainer-deprecated/") and lines(warning) == 2
    assert document["sources"][0]["filename"] == "name" and "buildError" not in document
    with pytest.raises(DockerfileError) as failed:
        parse("FROM scratch\nRUNN x\n")
    broken = describe.lint("name", "", (), failed.value)["buildError"]
    assert broken["message"].startswith("unknown instruction: RUNN") and lines(broken) == 2


def test_the_address_of_a_rule_has_its_words() -> None:
    text = "FROM scratch\nCMD a\n"
    assert graph(text).warnings[0].url.endswith("/rule/json-args-recommended/")
