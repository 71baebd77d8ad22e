"""Scores, exceptions and report formats, with hostile names."""

from __future__ import annotations

import datetime
import json
import sysconfig
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft4Validator

from jaula.features.audit.benchmark.assessment import (
    Assessment,
    Score,
    Subject,
    assess,
    counts,
    score,
)
from jaula.features.audit.benchmark.catalog import SECTIONS
from jaula.features.audit.benchmark.control import (
    Control,
    Judgement,
    Kind,
    Profile,
    Scope,
    State,
    fails,
    judged,
    manual,
)
from jaula.features.audit.benchmark.exceptions import Exemption
from jaula.features.audit.benchmark.reports import FORMATS, sarif

TODAY = datetime.date(2026, 6, 1)
HOSTILE = 'a"b<c>&d\x1b[2J\x00\n\udc80\ufffe]]>'
SCHEMA = json.loads(Path(sysconfig.get_path("purelib"), "sarif-schema.json").read_text())


def control(id: str, level: int = 1, **judges: Any) -> Control:
    by_kind = {Kind(kind): judge for kind, judge in judges.items()}
    return Control(id, level, (Scope.CONTAINERS,), f"control {id}", by_kind, "5")


CONTROLS = (
    control("5.2", container=lambda bad: judged(not bad, f"is {bad}{HOSTILE}", "remediation")),
    control("5.3", 2, container=lambda _: manual(HOSTILE, HOSTILE)),
    control("5.4", host=lambda _: fails("x", "y")),
    control("5.5", 2, container=lambda _: judged(True, "good", "")),
)
PROFILE = Profile("cis", "CIS Docker Benchmark 1.6.0", SECTIONS, CONTROLS)


def subjects(**bad: bool) -> list[Subject]:
    return [Subject(Kind.CONTAINER, name, value) for name, value in bad.items()]


def assessment(*exemptions: Exemption, extra: tuple[Subject, ...] = ()) -> Assessment:
    everything = [*subjects(web=False, db=True), Subject(Kind.CONTAINER, HOSTILE, True), *extra]
    outcomes = assess(CONTROLS, [Scope.CONTAINERS], everything, exemptions, TODAY)
    return Assessment("2026-06-01T00:00:00Z", "host", "id", (Scope.CONTAINERS,), outcomes, PROFILE)


def test_a_control_has_the_worst_state_of_its_subjects() -> None:
    found = {outcome.control.id: outcome.state for outcome in assessment().outcomes}
    assert found == {
        "5.2": State.FAIL,
        "5.3": State.MANUAL,
        "5.4": State.NOT_APPLICABLE,
        "5.5": State.PASS,
    }
    assert not assessment().passed
    assert score(assessment().outcomes) == Score(1, 3)
    assert score(assessment().outcomes, 1) == Score(0, 1)
    assert score(assessment().outcomes, 2) == Score(1, 2)
    assert dict(counts(assessment().outcomes)) == {
        State.FAIL: 1,
        State.MANUAL: 1,
        State.PASS: 1,
        State.NOT_APPLICABLE: 1,
    }


def test_a_subject_without_evidence_is_unknown_and_does_not_pass() -> None:
    extra = (Subject(Kind.CONTAINER, "gone", None, "it cannot be read"),)
    result = assessment(Exemption("5.2", "r", TODAY), extra=extra)
    assert not result.passed
    assert {o.state for o in result.outcomes if o.control.id == "5.5"} == {State.UNKNOWN}


def test_an_exception_accepts_a_failure_until_it_ends() -> None:
    result = assessment(Exemption("5.2", "accepted", TODAY))
    assert result.passed
    assert result.outcomes[0].state is State.EXCEPTED
    assert {f.state for f in result.outcomes[0].findings} == {State.PASS, State.EXCEPTED}
    ended = assessment(Exemption("5.2", "accepted", TODAY - datetime.timedelta(days=1)))
    assert ended.outcomes[0].state is State.FAIL
    assert "the exception ended on 2026-05-31: accepted" in FORMATS["table"](ended)
    partial = assessment(Exemption("5.2", "accepted", TODAY, subject="db"))
    states = {f.subject: f.state for f in partial.outcomes[0].findings}
    assert (states["db"], states[HOSTILE]) == (State.EXCEPTED, State.FAIL)


def test_the_table_has_no_control_characters() -> None:
    text = FORMATS["table"](assessment())
    assert all(line.isprintable() for line in text.splitlines())
    assert "1/3 applicable controls hold (level 1: 0/1, level 2: 1/2)" in text


@pytest.mark.parametrize("exemptions", [(), (Exemption("5.2", "accepted", TODAY),)])
def test_sarif_is_valid(exemptions: tuple[Exemption, ...]) -> None:
    log = json.loads(FORMATS["sarif"](assessment(*exemptions)))
    assert not [error.message for error in Draft4Validator(SCHEMA).iter_errors(log)]
    (run,) = log["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["5.2", "5.3", "5.4", "5.5"]
    for result in run["results"]:
        rules = run["tool"]["driver"]["rules"]
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert (result["level"] == "none") is (result["kind"] != "fail")
        assert ("suppressions" in result) is (result["properties"]["state"] == "excepted")


def test_a_result_has_the_same_fingerprint_in_the_next_report() -> None:
    def prints(result: Assessment) -> list[Any]:
        return [r["partialFingerprints"] for r in sarif.document(result)["runs"][0]["results"]]

    assert prints(assessment()) == prints(assessment(Exemption("5.2", "r", TODAY)))
    assert len({str(p) for p in prints(assessment())}) == len(prints(assessment()))


def test_junit_counts_what_it_has() -> None:
    tree = ElementTree.fromstring(FORMATS["junit"](assessment()))
    (suite,) = tree.iter("testsuite")
    cases = list(tree.iter("testcase"))
    for element in (tree, suite):
        assert int(element.attrib["tests"]) == len(cases) == 9
        assert int(element.attrib["failures"]) == len(list(tree.iter("failure"))) == 2
        assert int(element.attrib["skipped"]) == len(list(tree.iter("skipped"))) == 3
        assert int(element.attrib["errors"]) == len(list(tree.iter("error"))) == 0


class Tags(HTMLParser):
    """Parser of a page whose tags must close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_no_scripts_and_all_findings() -> None:
    text = FORMATS["html"](assessment())
    tags = Tags(text)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe", "b", "c"} & set(tags.names)
    assert "\x1b" not in text and "default-src 'none'" in text
    assert tags.names.count("tr") == 1 + 9 + 1, "a head, the findings, a control without any"


def test_json_has_every_finding() -> None:
    document = json.loads(FORMATS["json"](assessment()))
    assert document["score"]["all"] == {"holding": 1, "applicable": 3}
    assert [f["subject"] for f in document["controls"][0]["findings"]] == ["web", "db", HOSTILE]


def test_sections_and_ids_may_be_words() -> None:
    """The profiles other than CIS, and ``jaula image audit``, have no numbers."""
    judged_by = {Kind.IMAGE: lambda _: fails("3 files", "remove")}
    controls = tuple(
        Control(id, 1, (Scope.IMAGES,), f"control {id}", judged_by, section)
        for id, section in (("user", "configuration"), ("file-secrets", "secrets"))
    )
    profile = Profile("image", "image audit", {"configuration": "configuration",
                                               "secrets": "secrets"}, controls)  # fmt: skip
    outcomes = assess(controls, [Scope.IMAGES], [Subject(Kind.IMAGE, "web", None)], (), TODAY)
    whole = Assessment("2026-06-01T00:00:00Z", "host", "id", (Scope.IMAGES,), outcomes, profile,
                       "jaula image audit")  # fmt: skip
    log = json.loads(FORMATS["sarif"](whole))
    assert not [error.message for error in Draft4Validator(SCHEMA).iter_errors(log)]
    assert log["runs"][0]["tool"]["driver"]["name"] == "jaula image audit"
    assert [r["ruleId"] for r in log["runs"][0]["results"]] == ["user", "file-secrets"]
    tree = ElementTree.fromstring(FORMATS["junit"](whole))
    assert [s.attrib["name"] for s in tree.iter("testsuite")] == ["configuration", "secrets"]
    assert next(tree.iter("testcase")).attrib["classname"] == "image.image.web"
    assert "<h2>secrets</h2>" in FORMATS["html"](whole)
    assert json.loads(FORMATS["json"](whole))["profile"] == "image"


def test_details_are_in_json_and_html_alone() -> None:
    judgement = Judgement(State.FAIL, "2 of many", "remove", details=("first", "second <b>"))
    control = Control("x", 1, (Scope.IMAGES,), "x", {Kind.IMAGE: lambda _: judgement}, "s")
    profile = Profile("image", "image", {"s": "s"}, (control,))
    outcomes = assess([control], [Scope.IMAGES], [Subject(Kind.IMAGE, "web", None)], (), TODAY)
    whole = Assessment("2026-06-01T00:00:00Z", "host", "id", (Scope.IMAGES,), outcomes, profile)
    finding = json.loads(FORMATS["json"](whole))["controls"][0]["findings"][0]
    assert finding["details"] == ["first", "second <b>"]
    assert "second &lt;b&gt;" in FORMATS["html"](whole)
    assert "second" not in FORMATS["table"](whole)
