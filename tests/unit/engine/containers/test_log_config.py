"""Which options a log has: the container's, the engine's for its driver, the defaults."""

from __future__ import annotations

import pytest

from jaula.config import EngineConfig
from jaula.engine.containers.log_config import (
    attributes,
    check,
    expand,
    log_options,
    pod_log,
    pod_log_config,
    requested_options,
)
from jaula.errors import InvalidRequest
from jaula.logs.pod_log import PodLog
from jaula.spec.api_documents import ContainerCreate, LogConfig
from jaula.state.container_records import ContainerRecord

ENGINE = EngineConfig(log_options={"max-size": "1m", "compress": "true"})


def test_a_container_that_says_nothing_gets_the_engines() -> None:
    driver, options = log_options(ENGINE, LogConfig())
    assert (driver, options) == (
        "json-file",
        {"max-size": "1m", "compress": "true", "max-file": "3"},
    )


def test_options_of_the_container_override_the_engines() -> None:
    _, options = log_options(ENGINE, LogConfig(type="json-file", config={"compress": "false"}))
    assert options == {"max-size": "1m", "compress": "false", "max-file": "3"}


def test_another_driver_gets_none_of_them() -> None:
    assert log_options(ENGINE, LogConfig(type="none")) == ("none", {})


@pytest.mark.parametrize(
    "config",
    [
        EngineConfig(log_driver="jornald"),
        EngineConfig(log_driver="cri", log_options={"directory": "/d", "path": "0.log"}),
        EngineConfig(log_options={"compres": "true"}),
        EngineConfig(log_options={"max-file": "0"}),
        EngineConfig(log_options={"max-size": "ten"}),
        EngineConfig(log_driver="none", log_options={"max-size": "1m"}),
    ],
)
def test_an_engine_log_driver_that_no_container_could_use_is_refused(config: EngineConfig) -> None:
    with pytest.raises(InvalidRequest, match="invalid logging driver or options"):
        check(config)


def test_the_engine_sets_the_log_of_a_pod_and_a_client_cannot() -> None:
    log = pod_log_config("/var/log/pods/x", "web/0.log")
    assert log_options(ENGINE, log) == ("cri", log.config)
    assert pod_log(log) == PodLog("/var/log/pods/x", "web/0.log")
    assert pod_log(LogConfig(type="local", config=log.config)) is None
    with pytest.raises(InvalidRequest, match="no log driver named 'cri' is registered"):
        requested_options(ENGINE, log)
    with pytest.raises(InvalidRequest, match="not below"):
        pod_log_config("/var/log/pods/x", "../0.log")


def test_an_expression_selects_labels_and_variables() -> None:
    body = ContainerCreate(image="box", labels={"app.x": "1", "other": "2"}, env=("TIER=3", "A=4"))
    record = ContainerRecord("1" * 64, "web", 1, body, "sha256:00")
    options = {"labels-regex": r"^app\.", "env-regex": "^TI"}
    assert attributes(options, record) == {"TIER": "3", "app.x": "1"}


def test_an_expression_takes_time_by_the_length_of_a_name() -> None:
    """A backtracking matcher would try 2 to the power of 50 ways."""
    body = ContainerCreate(image="box", labels={"a" * 50 + "!": "1"})
    record = ContainerRecord("1" * 64, "web", 1, body, "sha256:00")
    assert attributes({"labels-regex": "^(a+)+$"}, record) == {}


@pytest.mark.parametrize("text", ["(", "a(?=b)", "(x{900}){900}", "\\1"])
def test_an_expression_that_is_not_valid_or_too_large_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"log opt labels-regex: .* not a valid regular"):
        log_options(EngineConfig(), LogConfig(type="json-file", config={"labels-regex": text}))


def test_a_tag_has_a_bounded_length() -> None:
    def requested(tag: str) -> object:
        return requested_options(ENGINE, LogConfig(type="syslog", config={"tag": tag}))

    requested("a" * 1024)
    with pytest.raises(InvalidRequest, match="tag: 1025 characters; at most 1024 are allowed"):
        requested("a" * 1025)


@pytest.mark.parametrize(
    ("template", "tag"),
    [
        ("{{.ID}}", "1f"),
        ("{{ .ID }}/{{.ID}}-", "1f/1f-"),
        ("a}}{{.ID}}}}", "a}}1f}}"),
        ("{{", "{{"),
        ("{{.ID}}{{.ID", "1f{{.ID"),
        ("", ""),
    ],
)
def test_fields_of_a_tag_are_replaced(template: str, tag: str) -> None:
    assert expand(template, {".ID": "1f"}) == tag


@pytest.mark.parametrize("template", ["{{{.ID}}", "{{{{.ID}}", "{{}}", "{{.Id}}", "{{.ID}}{{.X}}"])
def test_an_unknown_field_of_a_tag_is_an_error(template: str) -> None:
    with pytest.raises(InvalidRequest, match="is not known"):
        expand(template, {})
