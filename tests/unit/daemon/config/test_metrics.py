"""``--metrics-*``: addresses, labels, the interval."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.config import METRICS_LABELS
from jaula.daemon.config import daemon_json
from jaula.errors import InvalidRequest
from jaula.features.metrics import metrics_settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9323", ("127.0.0.1", 9323)),
        (":9323", ("127.0.0.1", 9323)),
        ("9323", ("127.0.0.1", 9323)),
        ("localhost:1", ("127.0.0.1", 1)),
        ("0.0.0.0:9323", ("0.0.0.0", 9323)),
        ("[::1]:9323", ("::1", 9323)),
    ],
)
def test_an_address_without_a_host_is_one_of_the_loopback_interface(
    text: str, expected: tuple[str, int]
) -> None:
    assert metrics_settings.parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["node:9323", "127.0.0.1:", "127.0.0.1:0", ":65536", "x", "127.0.0.1:٣", "::1", ":-1"]
)
def test_an_invalid_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        metrics_settings.parse_address(text)
    assert "127.0.0.1:9323" in (caught.value.hint or "")


@given(st.text(max_size=40))
def test_any_address_is_parsed_or_refused(text: str) -> None:
    try:
        host, port = metrics_settings.parse_address(text)
    except InvalidRequest:
        return
    assert host
    assert 0 < port < 65536


def test_settings_become_fields_of_the_configuration() -> None:
    settings: dict[str, Any] = {
        "metrics_addr": ":9323",
        "metrics_label": ("team", "team", METRICS_LABELS[0]),
        "metrics_verify_interval": 60,
        "metrics_refusals": "ebpf",
        "debug": True,
    }
    metrics_settings.normalize(settings, rootless=False)
    assert settings == {
        "metrics": ("127.0.0.1", 9323),
        "metrics_labels": (*METRICS_LABELS, "team"),
        "metrics_verify_interval": 60,
        "metrics_refusals": "ebpf",
        "debug": True,
    }


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"metrics_verify_interval": 9}, "at least 10 seconds"),
        ({"metrics_verify_interval": -1}, "at least 10 seconds"),
        ({"metrics_refusals": "tracing"}, "must be one of audit, ebpf, none"),
        ({"metrics_label": ("",)}, "not a name"),
        ({"metrics_label": ("a\nb",)}, "not a name"),
        ({"metrics_label": tuple(map(str, range(40)))}, "is set 45 times"),
    ],
)
def test_settings_that_are_not_valid_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        metrics_settings.normalize(settings, rootless=False)


def test_a_rootless_engine_has_no_address() -> None:
    with pytest.raises(InvalidRequest, match="network namespace of its own"):
        metrics_settings.normalize({"metrics_addr": ":9323"}, rootless=True)


def test_the_file_has_the_same_settings() -> None:
    settings, _ = daemon_json.parse(
        b'{"metrics-addr": ":1", "metrics-labels": ["a"], "metrics-verify-interval": 10,'
        b' "log-format": "json", "log-level": "warn"}'
    )
    assert (settings["log_format"], settings["log_level"]) == ("json", "warn")
    metrics_settings.normalize(settings, rootless=False)
    assert settings["metrics"] == ("127.0.0.1", 1)
