"""The filters of all lists and prunes, with hostile values."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.engine.model import label_filters
from jaula.errors import InvalidRequest

LABELS = {"a": "1", "b": "", "c=d": "2"}


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        ("a", True),
        ("a=1", True),
        ("a=", False),
        ("a=2", False),
        ("b", True),
        ("b=", True),
        ("x", False),
        ("", False),
        ("a=1=1", False),
    ],
)
def test_a_label_is_selected_by_name_or_by_value(selector: str, fits: bool) -> None:
    assert label_filters.has_label(LABELS, selector) is fits


def test_several_labels_must_all_match() -> None:
    assert label_filters.has_labels(LABELS, ["a", "b="])
    assert not label_filters.has_labels(LABELS, ["a", "x"])
    assert label_filters.has_labels({}, [])


@pytest.mark.parametrize(
    ("given_filters", "taken"),
    [
        ({}, True),
        ({"until": ["101"]}, True),
        ({"until": ["100"]}, False),
        ({"until": ["200", "50"]}, False),
        ({"label": ["a=1"]}, True),
        ({"label": ["a=1", "x"]}, False),
        ({"label!": ["a"]}, False),
        ({"label!": ["x"]}, True),
        ({"label!": ["a", "x"]}, True),
        ({"label!": ["a", "b"]}, False),
        ({"label!": []}, True),
        ({"label": ["a"], "label!": ["b"]}, False),
    ],
)
def test_prune_removes_the_objects_that_its_filters_select(
    given_filters: dict[str, list[str]], taken: bool
) -> None:
    assert label_filters.prune_selects(given_filters, LABELS, 100.0) is taken


def test_other_names_are_refused() -> None:
    label_filters.check_names({"label": []}, ("label", "until"))
    with pytest.raises(InvalidRequest, match="invalid filter 'x'"):
        label_filters.check_names({"x": []}, ("label", "until"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"name": ["x"]}, "invalid filter 'name'"),
        ({"until": ["yesterday"]}, 'failed to parse value as time or duration: "yesterday"'),
        ({"until": [""]}, 'failed to parse value as time or duration: ""'),
        ({"until": ["1h", "2h"]}, "more than one until filter specified"),
    ],
)
def test_a_prune_is_refused_before_it_removes_anything(
    bad: dict[str, list[str]], message: str
) -> None:
    label_filters.check_prune({"until": ["1h"], "label": ["a"], "label!": ["b"], "x": []}, "x")
    with pytest.raises(InvalidRequest) as caught:
        label_filters.check_prune(bad)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("^shop$", "shop", True),
        ("^shop$", "shops", False),
        ("ho", "shop", True),
        ("[", "a[b", True),  # not a regular expression
        ("[", "shop", False),
    ],
)
def test_a_filter_by_name_is_a_regular_expression(pattern: str, text: str, expected: bool) -> None:
    assert label_filters.has_match(pattern, text) is expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1700000000.5", 1700000000.5),
        ("2024-02-29T12:00:00Z", 1709208000.0),
        ("2024-02-29T12:00:00+02:00", 1709200800.0),
        ("9999999h", 0.0),
    ],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert label_filters.parse_time(text) == seconds


@pytest.mark.parametrize(("text", "ago"), [("24h", 86400), ("1h30m", 5400), ("500ms", 0.5)])
def test_a_duration_is_that_long_ago(text: str, ago: float) -> None:
    assert label_filters.parse_time(text) == pytest.approx(time.time() - ago, abs=5)


@pytest.mark.parametrize(
    "text",
    ["", "x", "-1", "1e9", "nan", "inf", "9" * 400, "253402300801", "٣", "1x", "2024-13-01"],
)
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="failed to parse value as time or duration"):
        label_filters.parse_time(text)


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        assert 0.0 <= label_filters.parse_time(text) <= 253402300799.0
    except InvalidRequest:
        pass


@pytest.mark.parametrize(
    ("values", "value"), [(["1"], True), (["true"], True), (["false"], False), (["0", "0"], False)]
)
def test_a_truth_value_is_read(values: list[str], value: bool) -> None:
    assert label_filters.truth("dangling", values) is value


@pytest.mark.parametrize("values", [[], ["yes"], ["1", "0"]])
def test_neither_or_both_truth_values_are_refused(values: list[str]) -> None:
    with pytest.raises(InvalidRequest, match=r"invalid filter 'dangling=\["):
        label_filters.truth("dangling", values)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("web", "my-web-1", True),
        ("^web$", "my-web-1", False),
        ("^my.*1$", "my-web-1", True),
        ("[", "a[b", True),  # not an expression: a part
        ("(?=a)", "a", False),  # RE2 has no such group, as in Docker
        ("WEB", "web", False),
        ("(?i)WEB", "web", True),
        ("\udc80", "a\udc80", True),
        ("", "web", True),
    ],
)
def test_an_expression_or_else_a_part_is_searched(pattern: str, text: str, expected: bool) -> None:
    assert label_filters.has_match(pattern, text) is expected


@pytest.mark.parametrize("pattern", ["(a|a)*b", "(a+)+$", "(a*)*(a*)*(a*)*b"])
def test_no_expression_takes_exponential_time(pattern: str) -> None:
    assert not label_filters.has_match(pattern, "a" * 60 + "!")


def test_a_filter_has_a_bounded_number_of_expressions() -> None:
    words = [f"web{number}" for number in range(1000)]
    label_filters.check_expressions(
        "name", [*words, *(f"a{number}." for number in range(64)), "a1."]
    )
    with pytest.raises(InvalidRequest, match="'name': 65 regular expressions; at most 64"):
        label_filters.check_expressions("name", [f"a{number}." for number in range(65)])
