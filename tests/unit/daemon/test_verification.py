"""Counts of the rows of ``verify --format json``."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.features.metrics import verification


def row(subject: str, layer: str, verdict: str) -> dict[str, object]:
    return {
        "subject": subject,
        "layer": layer,
        "verdict": verdict,
        "more": [1],
        "kind": "container",
    }


def test_rows_are_counted_by_layer_and_by_container() -> None:
    rows = [
        *(row("web", "seccomp", "holds"), row("web", "seccomp", "FAILS")),
        *(row("db", "seccomp", "holds"), row("db", "mounts", "relaxed")),
    ]
    counts = verification.count(json.dumps(rows).encode())
    assert counts.layers == {
        ("mounts", "relaxed"): 1,
        ("seccomp", "fails"): 1,
        ("seccomp", "holds"): 2,
    }
    assert counts.containers == {
        ("web", "holds"): 1,
        ("web", "fails"): 1,
        ("db", "holds"): 1,
        ("db", "relaxed"): 1,
    }


@pytest.mark.parametrize("data", [b"", b"[]"])
def test_an_engine_without_containers_has_no_rows(data: bytes) -> None:
    assert verification.count(data) == ({}, {})


@given(st.binary(max_size=60))
def test_another_document_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        verification.count(b"{" + data)


def test_the_number_of_layers_is_bounded() -> None:
    rows = [row("web", f"layer{number}", "holds") for number in range(1000)]
    assert len(verification.count(json.dumps(rows).encode()).layers) == 256
