"""The text formats: what Prometheus' own parsers read, negotiation, names and values of others."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from jaula.features.metrics import exposition
from jaula.features.metrics.exposition import OPENMETRICS, TEXT, Family
from jaula.metrics import Histogram

PROMETHEUS = (  # 2.53
    "application/openmetrics-text;version=1.0.0;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PARSERS = {TEXT: text, OPENMETRICS: openmetrics}


def page(family: Family, format: str) -> str:
    return exposition.encode(family, format) + exposition.end(format)


def gauge(*lines: str) -> Family:
    return Family("a_bytes", "Help.", "gauge", [f"a_bytes{line}" for line in lines])


@pytest.mark.parametrize("format", [TEXT, OPENMETRICS])
@given(value=st.text(max_size=300), help=st.text(alphabet=st.characters(codec="utf-8")))
def test_a_parser_reads_back_any_value_and_help(format: str, value: str, help: str) -> None:
    common = exposition.labels({"name": value, "id": "/x"})
    family = gauge(f"{common} 1\n")._replace(help=help.replace("\r", ""))
    (read,) = PARSERS[format](page(family, format))
    (sample,) = read.samples
    expected = value.encode("utf-8", "replace").decode()[: exposition.MAX_VALUE]
    assert sample.labels == ({"name": expected, "id": "/x"} if expected else {"id": "/x"})


def test_a_label_cannot_add_a_line_or_a_label() -> None:
    hostile = 'x",evil="1"} 5\ncontainer_oom_events_total 9'
    text_of = page(gauge(f"{exposition.labels({'name': hostile})} 1\n"), TEXT)
    assert len(text_of.splitlines()) == 3
    (read,) = text(text_of)
    assert read.samples[0].labels == {"name": hostile}


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert exposition.labels({"name": "a\udcff"}) == '{name="a?"}'


def test_a_value_is_cut_before_it_is_escaped() -> None:
    assert exposition.escape('"' * 1000) == r"\"" * exposition.MAX_VALUE


@pytest.mark.parametrize("format", [TEXT, OPENMETRICS])
def test_a_histogram_has_cumulative_buckets(format: str) -> None:
    histogram = Histogram("a_seconds", "A.", ("kind",), buckets=(0.1, 1.0))
    for seconds in (0.05, 0.5, 5.0):
        histogram.observe(seconds, "x")
    (value,) = histogram.values().values()
    lines = exposition.histogram_lines("a_seconds", '{kind="x"}', histogram.buckets, value)
    (read,) = PARSERS[format](page(Family("a_seconds", "A.", "histogram", lines), format))
    assert read.type == "histogram"
    buckets = {s.labels["le"]: s.value for s in read.samples if s.name == "a_seconds_bucket"}
    assert buckets == {"0.1": 1, "1.0": 2, "+Inf": 3}
    rest = {s.name: s.value for s in read.samples if "le" not in s.labels}
    assert rest == {"a_seconds_sum": pytest.approx(5.55), "a_seconds_count": 3}


def test_openmetrics_names_a_counter_without_its_suffix() -> None:
    family = Family("a_total", "A.", "counter", ["a_total 3\n"])
    assert exposition.encode(family, OPENMETRICS).splitlines() == [
        *("# HELP a A.", "# TYPE a counter", "a_total 3")
    ]
    assert "# TYPE a_total counter" in exposition.encode(family, TEXT)


def test_a_counter_of_cadvisor_without_the_suffix_is_unknown_in_openmetrics() -> None:
    family = Family("container_memory_failcnt", "A.", "counter", ["container_memory_failcnt 3\n"])
    (read,) = openmetrics(page(family, OPENMETRICS))
    assert (read.type, read.samples[0].value) == ("unknown", 3)


def test_a_family_without_samples_is_left_out() -> None:
    assert exposition.encode(gauge(), TEXT) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, "3"), (3.0, "3"), (0.25, "0.25"), (2.0**60, "1.152921504606847e+18"), (-1, "-1")],
)
def test_a_whole_number_has_no_fraction(value: float, expected: str) -> None:
    assert exposition.number(value) == expected
    assert math.isclose(float(expected), value)


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
            OPENMETRICS,
        ),
        ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;q=0.8", TEXT),
        ("application/openmetrics-text;q=0,*/*;q=0.1", TEXT),
        ("application/openmetrics-text;q=nan", TEXT),
        ("application/openmetrics-text;q=x;;=,,", TEXT),
        (PROMETHEUS, OPENMETRICS),
    ],
)
def test_the_client_chooses_the_format(accept: str, format: str) -> None:
    assert exposition.negotiate(accept) == format


@given(st.text(max_size=200))
def test_any_accept_header_has_an_answer(accept: str) -> None:
    assert exposition.negotiate(accept) in (TEXT, OPENMETRICS)


def test_names_of_container_labels_are_cadvisors() -> None:
    name = exposition.label_name("com.docker.compose.project")
    assert name == "container_label_com_docker_compose_project"
    assert exposition.label_name("a-b/é") == "container_label_a_b__"
