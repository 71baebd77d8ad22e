"""The words of ``exec --cgroup``."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.oci.sub_cgroup import parse


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        ([], {}),
        (["a/b"], {"": "a/b"}),
        (["/a/"], {"": "a"}),
        (["cpu,cpuacct:a", "pids:b"], {"cpu": "a", "cpuacct": "a", "pids": "b"}),
    ],
)
def test_paths_by_controller(words: list[str], paths: dict[str, str]) -> None:
    assert parse(words) == paths


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a", "pids:b"], "a controller is missing"),
        (["pids:a", "pids:b"], "pids is specified twice"),
        (["pids:"], "the path is missing"),
        (["/"], "the path is missing"),
        ([",:a"], "a controller is missing"),
    ],
)
def test_malformed_words_are_refused(words: list[str], text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        parse(words)
