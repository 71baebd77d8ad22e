"""Which options a log has: the container's, the engine's for its driver, the defaults."""

from __future__ import annotations

import pytest

from jaula.config import EngineConfig
from jaula.engine.containers.log_config import check, log_options
from jaula.errors import InvalidRequest
from jaula.spec.api import LogConfig

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
        EngineConfig(log_options={"compres": "true"}),
        EngineConfig(log_options={"max-file": "0"}),
        EngineConfig(log_options={"max-size": "ten"}),
        EngineConfig(log_driver="none", log_options={"max-size": "1m"}),
    ],
)
def test_an_engine_log_driver_that_no_container_could_use_is_refused(config: EngineConfig) -> None:
    with pytest.raises(InvalidRequest, match="invalid logging driver or options"):
        check(config)
