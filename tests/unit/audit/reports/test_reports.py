"""Report formats: complete, escaped, and SARIF according to its standard."""

from __future__ import annotations

import itertools
import json
import re
import sysconfig
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jsonschema import Draft4Validator

import jaula.features.verify.checks
import jaula.features.verify.host
from jaula.features.verify.model.check_info import describe
from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.reports import (
    FORMATS,
    sarif,
    text,
)
from jaula.features.verify.reports import (
    html as report_html,
)
from jaula.features.verify.reports import (
    json as report_json,
)
from jaula.features.verify.reports import (
    svg as report_svg,
)
from jaula.features.verify.reports.report import CHECK_INFOS, Report, worst

MOMENT = "2026-01-02T03:04:05Z"
HOSTILE = '<script>alert("x")</script>\x1b[31m\udc80'


def row(verdict: Verdict, check: str = "masks", **values: str) -> Result:
    passed = {"requested": "10 paths", "effective": "9", "evidence": "/proc/7/mountinfo, /proc/7"}
    passed |= values
    layer = next(info.layer for info in CHECK_INFOS if info.id == check)
    return Result(f"row of {check}", layer, verdict=verdict, check=check, **passed)


ALL = tuple(row(verdict, check.id) for check in CHECK_INFOS for verdict in Verdict)
REPORT = Report("web", "container", MOMENT, ALL)


# -- descriptions of checks ------------------------------------------------------------------


def test_every_check_has_reason_evidence_and_advice() -> None:
    for info in CHECK_INFOS:
        for field in ("id", "layer", "title", "reason", "evidence", "advice"):
            value = getattr(info, field)
            assert value and value == value.strip(), f"{info.id}: {field}"
        assert info.references, info.id
        assert all(
            re.fullmatch(r"I\d+|CIS \d+(\.\d+)+|CVE-\d+-\d+|GHSA-[\w-]+|\w+\(\d\).*", reference)
            for reference in info.references
        ), info.references
        assert info.reason.endswith("."), info.id
        assert info.id in describe(info)
    assert len({info.id for info in CHECK_INFOS}) == len(CHECK_INFOS)


@pytest.mark.parametrize("package", [jaula.features.verify.checks, jaula.features.verify.host])
def test_every_file_of_checks_is_in_the_table(package: object) -> None:
    directory = Path(str(package.__path__[0]))  # type: ignore[attr-defined]
    files = {path.stem for path in directory.glob("*.py") if "\nINFO = " in path.read_text()}
    modules = {check.rows.__module__.rpartition(".")[::2] for check in package.TABLE}  # type: ignore[attr-defined]
    listed = {name for parent, name in modules if parent == package.__name__}  # type: ignore[attr-defined]
    assert files == listed


# -- SARIF -----------------------------------------------------------------------------------

SCHEMA = json.loads(Path(sysconfig.get_path("purelib"), "sarif-schema.json").read_text())
"""The standard's own schema, as a package of the test set-up brings it."""


def test_sarif_is_valid_and_every_result_names_its_rule() -> None:
    log = json.loads(sarif.render([REPORT]))
    assert not [error.message for error in Draft4Validator(SCHEMA).iter_errors(log)]
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert len(run["results"]) == len(ALL)
    for result, source in zip(run["results"], ALL, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == source.check
        assert (result["level"] == "none") is (result["kind"] != "fail")
        assert (result["kind"] == "fail") is (source.verdict is Verdict.FAILS)


def test_a_result_has_the_same_fingerprint_in_the_next_report() -> None:
    def prints(*reports: Report) -> list[str]:
        results = sarif.document(reports)["runs"][0]["results"]
        return [result["partialFingerprints"]["subjectAndRow/v1"] for result in results]

    one = Report("web", "container", MOMENT, (row(Verdict.HOLDS),))
    later = Report("web", "container", "later", (row(Verdict.FAILS, effective="none"),))
    other = Report("db", "container", MOMENT, (row(Verdict.HOLDS),))
    assert prints(one) == prints(later) != prints(other)


# -- the page --------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Parser of every tag and attribute; tags must close."""

    VOID = ("meta", "rect", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_no_scripts_and_valid_links() -> None:
    host = Report("host", "host", MOMENT, (row(Verdict.RELAXED, "host-kernel"),))
    tags = Tags(report_html.render([REPORT, host]))
    assert tags.open == []
    names = [tag for tag, _ in tags.found]
    assert not {"script", "link", "img", "iframe"} & set(names)
    assert names.count("svg") == 1, "containers have a picture, the host has none"
    targets = {values["id"] for _, values in tags.found if "id" in values}
    links = {str(values["href"]) for _, values in tags.found if "href" in values}
    assert links and all(link[0] == "#" and link[1:] in targets for link in links)
    assert not any(name.startswith("on") for _, values in tags.found for name in values)


def test_text_from_a_container_is_escaped() -> None:
    hostile = row(Verdict.FAILS, requested=HOSTILE, effective=HOSTILE, evidence=HOSTILE)
    report = Report(HOSTILE, "container", MOMENT, (hostile,))
    html = report_html.render([report])
    html.encode()  # everything is valid text
    assert "<script" not in html
    assert "\x1b" not in html
    assert "\x1b" not in text.render([Report("web", "container", MOMENT, (hostile,))])
    assert json.loads(report_json.render([report]))[0]["subject"] == HOSTILE
    assert Draft4Validator(SCHEMA).is_valid(sarif.document([report]))


def test_the_drawing_has_nested_boxes_for_the_layers() -> None:
    svg = ElementTree.fromstring(report_svg.draw("web", ALL, "r0"))
    boxes = [
        tuple(float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        for rect in svg.iter("rect")
    ]
    layers = {each.layer for each in ALL if each.layer != "host"}
    assert len(boxes) == len(layers) + 1
    for outer, inner in itertools.pairwise(boxes):
        assert inner[0] > outer[0] and inner[1] > outer[1]
        assert inner[0] + inner[2] < outer[0] + outer[2]
        assert inner[1] + inner[3] < outer[1] + outer[3]
    classes = {group.attrib["class"] for group in svg.iter("g")}
    assert classes == {"fails", "program"}


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_layer_has_its_worst_verdict(verdict: Verdict) -> None:
    assert worst([row(Verdict.HOLDS), row(verdict)]) is verdict
    drawn = report_svg.draw("web", [row(Verdict.HOLDS), row(verdict)], "r0")
    assert f'class="{report_svg.COLOURS[verdict]}"' in drawn


# -- the others ------------------------------------------------------------------------------


def test_several_reports_have_headings_and_a_summary() -> None:
    good = Report("a", "container", MOMENT, (row(Verdict.HOLDS),))
    bad = Report("b", "container", MOMENT, (row(Verdict.FAILS),))
    output = text.render([good, bad])
    assert output.startswith("a:\n")
    assert "\n\nb:\n" in output
    assert "advice for masks: " in output
    assert output.endswith("2 reports: 1 are proofs; not b")
    assert [entry["subject"] for entry in report_json.document([good, bad])] == ["a", "b"]


def test_every_format_renders_every_report() -> None:
    for name, render in FORMATS.items():
        assert ("row of masks" if name == "table" else "web") in render([REPORT])
