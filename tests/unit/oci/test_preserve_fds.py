"""The sockets that a service manager passes to a container."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.oci.preserve_fds import listen_variables


def test_sockets_for_this_process_are_passed_on() -> None:
    caller = {"LISTEN_FDS": "2", "LISTEN_PID": "77", "LISTEN_FDNAMES": "a:b", "OTHER": "x"}
    expected = {"LISTEN_FDS": "2", "LISTEN_PID": "1", "LISTEN_FDNAMES": "a:b"}
    assert listen_variables(caller, 77) == expected


@pytest.mark.parametrize(
    "caller",
    [
        {},
        {"LISTEN_FDS": "2"},
        {"LISTEN_FDS": "2", "LISTEN_PID": "78"},
        {"LISTEN_FDS": "0", "LISTEN_PID": "77"},
        {"LISTEN_FDS": "", "LISTEN_PID": "77"},
    ],
)
def test_sockets_for_another_process_are_not(caller: dict[str, str]) -> None:
    assert listen_variables(caller, 77) == {}


@pytest.mark.parametrize("number", ["-1", "x", "9" * 30])
def test_a_malformed_number_is_refused(number: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a number of descriptors"):
        listen_variables({"LISTEN_FDS": number, "LISTEN_PID": "77"}, 77)
