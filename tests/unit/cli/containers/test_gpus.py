"""``--gpus``: Docker's forms of a request for GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.cli.cli_errors import UsageError
from jaula.cli.containers import gpus


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("all", {"Count": -1}),
        ("2", {"Count": 2}),
        ("count=3", {"Count": 3}),
        ("device=0", {"DeviceIDs": ["0"]}),
        ('"device=0,1",driver=nvidia', {"DeviceIDs": ["0", "1"], "Driver": "nvidia"}),
        ("driver=amd", {"Count": 1, "Driver": "amd"}),
        ('all,"capabilities=compute,utility"', {"Capabilities": [["compute", "utility", "gpu"]]}),
        ("all,options=a=b", {"Options": {"a": "b"}}),
    ],
)
def test_a_request(word: str, expected: dict[str, Any]) -> None:
    document = gpus.request(word)
    assert {key: document[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("some", 'invalid count (some): value must be either "all" or an integer'),
        ("count=all,2", "gpu request key 'count' can be specified only once"),
        ("color=red", "unexpected key 'color' in 'color=red'"),
        ('"device=0', "a quote is not closed"),
    ],
)
def test_an_invalid_request(word: str, reason: str) -> None:
    with pytest.raises(UsageError) as raised:
        gpus.request(word)
    assert f'invalid argument "{word}" for "--gpus" flag: {reason}' in str(raised.value)
