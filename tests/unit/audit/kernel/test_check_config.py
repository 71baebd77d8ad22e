"""Rows of the kernel report for each combination of sources."""

from __future__ import annotations

import os

import pytest

from jaula.features.doctor.kernel import check_config, probes
from jaula.features.doctor.kernel.kernel_features import FEATURES, Feature


def feature(*options: str, needed: bool = False) -> Feature:
    return Feature("group", "name", options, None, "everything", needed)


@pytest.mark.parametrize(
    ("options", "tried", "support"),
    [
        ({"CONFIG_A": "y"}, "works", "yes"),
        ({}, "works", "yes"),
        ({"CONFIG_A": "y"}, "not in force", "no"),
        ({"CONFIG_A": "y"}, None, "yes"),
        ({"CONFIG_A": "m"}, None, "yes"),
        ({}, None, "no"),
        (None, None, "unknown"),
        (None, "works", "yes"),
        (None, "No such device", "no"),
    ],
)
def test_a_probe_overrides_the_configuration(
    options: dict[str, str] | None, tried: str | None, support: str
) -> None:
    row = check_config.support_row(feature("A", needed=True), options, tried)
    assert row.support == support
    assert row.fatal is (support == "no")


def test_only_a_needed_feature_is_fatal() -> None:
    assert not check_config.support_row(feature("A"), {}, None).fatal


def test_a_probe_without_permission_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    row = check_config.support_row(
        feature("A"), {"CONFIG_A": "y"}, "unshare: Operation not permitted"
    )
    assert row.support == "unknown"


def test_a_missing_feature_is_named_with_its_consequence() -> None:
    text = check_config.render(
        [check_config.support_row(feature("A", needed=True), {}, "No such device")]
    )
    assert text.endswith("0 of 1 features\nNEEDED name: no; lost: everything")


def test_every_feature_has_a_consequence() -> None:
    assert all(item.consequence and (item.options or item.probe) for item in FEATURES)
    assert len({item.name for item in FEATURES}) == len(FEATURES)


def test_a_probe_in_a_child_returns_its_error_and_changes_nothing() -> None:
    def fail() -> None:
        os.chdir("/")
        raise OSError(95, "no such luck")

    here = os.getcwd()
    before = len(os.listdir("/proc/self/fd"))
    assert "no such luck" in (probes.failure_in_child(fail) or "")
    assert probes.failure_in_child(lambda: None) is None
    assert "status" in (probes.failure_in_child(lambda: os.kill(os.getpid(), 9)) or "")
    assert os.getcwd() == here
    assert len(os.listdir("/proc/self/fd")) == before


def test_features_of_processors_are_wrapped() -> None:
    features = tuple(f"feature-{number}" for number in range(30))
    head, *lines = check_config.render_processor(features).strip().splitlines()
    assert "the 30 features" in head
    assert len(lines) > 1
    assert " ".join(lines).split() == list(features)


def test_a_host_that_names_no_features_says_so() -> None:
    assert "names no features" in check_config.render_processor(())
