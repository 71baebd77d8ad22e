"""Lists of CPUs and memory nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.spec import cpuset


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0", {0}),
        ("0-3,7", {0, 1, 2, 3, 7}),
        ("7, 2-2", {2, 7}),
        ("1,1,0-1", {0, 1}),
        ("8191", {8191}),
    ],
)
def test_a_list_is_read(text: str, cpus: set[int]) -> None:
    assert cpuset.parse(text) == cpus


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f: '' is not a list of cpus such as 0-3,7"),
        ("0,", "f: '0,' is not a list of cpus such as 0-3,7"),
        ("-1", "f: '-1' is not a list of cpus such as 0-3,7"),
        ("1-2-3", "f: '1-2-3' is not a list of cpus such as 0-3,7"),
        ("٣", "f: '٣' is not a list of cpus such as 0-3,7"),
        ("3-1", "f: range '3-1' runs backwards"),
        ("0-8192", "f: cpu 8192 is not below 8192"),
        ("99999999999999999999", "f: '99999999999999999999' is not a list of cpus such as 0-3,7"),
    ],
)
def test_an_invalid_list_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        cpuset.parse(text, field="f")
    assert str(caught.value) == message


def test_a_list_has_a_bounded_length() -> None:
    every = ",".join(map(str, range(cpuset.MOST)))
    assert len(cpuset.parse(every)) == cpuset.MOST
    text = "1," * 32_767 + "1 "
    assert len(text) == 65_536
    assert cpuset.parse(text) == {1}
    with pytest.raises(InvalidRequest, match="is longer than 65536 characters") as caught:
        cpuset.parse(f"{text} ", field="f")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-2,8\n", {0, 1, 2, 8}),
        ("", set()),
        ("\n", set()),
        ("1, ,3,", {1, 3}),
        ("0-2,5", {0, 1, 2, 5}),
    ],
)
def test_empty_elements_are_skipped_on_request(text: str, cpus: set[int]) -> None:
    assert cpuset.parse(text, empty_elements=True) == cpus


@pytest.mark.parametrize("text", ["a", "3-1", "1-", "-1", "0-99999999", "1 2", "\u0663"])
def test_bad_elements_are_refused_with_empty_ones_too(text: str) -> None:
    with pytest.raises(InvalidRequest):
        cpuset.parse(text, empty_elements=True)


@given(st.sets(st.integers(0, cpuset.MOST - 1), min_size=1, max_size=50))
def test_numbers_are_written_as_the_kernel_writes_them(numbers: set[int]) -> None:
    assert cpuset.parse(cpuset.text_of(numbers)) == numbers
    assert cpuset.text_of({0, 1, 2, 5}) == "0-2,5"
    assert cpuset.text_of(()) == ""


def test_a_bit_mask_has_its_lowest_byte_first() -> None:
    assert cpuset.bit_mask({8}) == b"\x00\x01"
    assert cpuset.bit_mask(()) == b""


@given(st.text(alphabet="0123456789-, ", max_size=20))
def test_no_text_makes_more_than_there_can_be(text: str) -> None:
    try:
        assert cpuset.parse(text) <= set(range(cpuset.MOST))
    except InvalidRequest:
        pass
