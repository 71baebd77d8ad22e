"""Items of listen lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.spec import listen
from jaula.spec.listen import Port


def test_items_are_sorted_and_without_duplicates() -> None:
    items = ("udp:53", "tcp:80", "tcp:080", "tcp:0")
    assert listen.parse(items) == (Port("tcp", 0), Port("tcp", 80), Port("udp", 53))
    assert listen.parse(()) == ()


@pytest.mark.parametrize(
    "item",
    ["", "80", "tcp", "tcp:", "tcp:65536", "tcp:-1", "tcp:1-2", "sctp:1", "tcp:80:80", "tcp: 80",
     "TCP:80", "tcp:\u0661", "tcp:000080"],
)  # fmt: skip
def test_what_is_not_a_port_is_refused(item: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid item"):
        listen.parse((item,))


def test_the_number_of_items_is_bounded() -> None:
    with pytest.raises(InvalidRequest, match="at most 1024"):
        listen.parse(tuple(f"tcp:{number}" for number in range(1025)))


def test_port_0_covers_what_the_kernel_selects() -> None:
    ports = listen.parse(("tcp:0", "tcp:80"))
    assert listen.covers(ports, "tcp", 40000)
    assert listen.covers(ports, "tcp", 80)
    assert not listen.covers(ports, "udp", 40000)
    assert not listen.covers(ports, "tcp", 81)
    assert {(p, n) for p, n in listen.allowed(ports) if n < 100 or p != "tcp"} == {("tcp", 80)}
    assert ("tcp", 40000) in listen.allowed(ports)


@given(st.text(max_size=20))
def test_any_text_is_an_item_or_an_error(text: str) -> None:
    try:
        (port,) = listen.parse((text,))
    except InvalidRequest:
        return
    assert 0 <= port.range[0] <= port.range[1] <= 65535
