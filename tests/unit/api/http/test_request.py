"""The query of a request, parsed as Docker parses it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.api.http.http_request import Query, unquote
from jaula.errors import InvalidRequest


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", True),
        ("true", True),
        ("True", True),
        ("yes", True),
        ("x", True),
        ("0", False),
        ("no", False),
        ("FALSE", False),
        ("none", False),
        ("", False),
        ("%20", False),
    ],
)
def test_only_dockers_false_values_are_false(value: str, expected: bool) -> None:
    assert Query(f"all={value}").flag("all", True) is expected


def test_an_absent_boolean_takes_the_routes_default() -> None:
    assert Query("").flag("stream", True) is True
    assert Query("other=1").flag("stream") is False


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ('{"name":{"t1":true}}', {"name": ["t1"]}),
        ('{"name":{"t1":true,"t2":false}}', {"name": ["t1"]}),
        ('{"name":["t1","t2"],"label":[]}', {"name": ["t1", "t2"], "label": []}),
        ('{"name":null}', {"name": []}),
        ("{}", {}),
        ("", {}),
    ],
)
def test_filters_are_parsed_in_both_of_dockers_forms(document: str, expected: object) -> None:
    assert Query("filters=" + document.replace("{", "%7B")).filters() == expected


@pytest.mark.parametrize(
    "document",
    [
        "x",
        "[]",
        "1",
        '{"a":"b"}',
        '{"a":{"b":1}}',
        '{"a":[1]}',
        "%ff",
        '{"a":' * 5000,
        '{"\\ud800":1}',
    ],
)
def test_a_filter_of_another_form_is_rejected(document: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid filter"):
        Query("filters=" + document).filters()


@pytest.mark.parametrize(("text", "expected"), [("", None), ("0", 0), ("-1", -1), ("+7", 7)])
def test_an_integer_is_parsed(text: str, expected: int | None) -> None:
    assert Query(f"t={text.replace('+', '%2B')}").integer("t") == expected


@pytest.mark.parametrize("text", ["x", "1.5", "1" * 20, "-", "%D9%A3", "1_0", "0x1", "--1"])
def test_an_invalid_integer_is_rejected(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not an integer"):
        Query(f"t={text}").integer("t")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", None), ("0", 0.0), ("1795532665", 1795532665.0), ("12.500000000", 12.5), ("-3", -3.0)],
)
def test_a_timestamp_is_parsed(text: str, expected: float | None) -> None:
    assert Query(f"since={text}").timestamp("since") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1795532665.123456789", 1_795_532_665_123_456_789),
        ("1795532665.1", 1_795_532_665_100_000_000),
        ("1795532665.1234567891", 1_795_532_665_123_456_789),
        ("-1.5", -1_500_000_000),
        (".5", 500_000_000),
        ("7.", 7_000_000_000),
    ],
)
def test_no_nanosecond_is_lost(text: str, expected: int) -> None:
    assert Query(f"since={text}").nanoseconds("since") == expected


@pytest.mark.parametrize("text", ["nan", "inf", "1e5", "2026-01-01", "1.2.3", "9" * 40, "1.-5"])
def test_an_invalid_timestamp_is_rejected(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not a time"):
        Query(f"since={text}").timestamp("since")


def test_values_are_decoded_and_keep_their_order() -> None:
    query = Query("names=a%2Fb%3A1&names=c+d&empty=&&bare&caf%C3%A9=1")
    assert query.texts("names") == ["a/b:1", "c d"]
    assert query.optional("empty") is None
    assert "bare" in query
    assert query.text("café") == "1"


@pytest.mark.parametrize("text", ["%", "%1", "%zz", "%+1", "% 1", "a%"])
def test_a_malformed_escape_is_rejected(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid URL escape"):
        unquote(text)


def test_a_query_with_too_many_parameters_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="more than 1024"):
        Query("a&" * 2000)


@given(st.text(alphabet='%&=+abAB09{}"[]:,\u00e9', max_size=80))
def test_any_query_is_parsed_or_an_invalid_request(text: str) -> None:
    try:
        query = Query(text)
        query.filters()
        query.integer("a")
        query.timestamp("b")
    except InvalidRequest:
        return


def test_filters_have_a_bounded_number_of_values() -> None:
    def query(number: int) -> Query:
        words = ",".join(f'"a{each}"' for each in range(number))
        return Query(f'filters={{"label":["a"],"id":[{words}]}}')

    assert len(query(1023).filters()["id"]) == 1023
    with pytest.raises(InvalidRequest, match="the filters hold 1025 values; at most 1024 are"):
        query(1024).filters()
