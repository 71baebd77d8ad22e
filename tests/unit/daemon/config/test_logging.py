"""``log-opts`` and ``--log-opt``: pairs that the driver validates."""

from __future__ import annotations

import pytest

from jaula.daemon.config import logging
from jaula.errors import InvalidRequest


def test_pairs_become_options_of_the_log_driver() -> None:
    settings: dict[str, object] = {"log_opt": ("compress=true", "tag={{.Name}}=x"), "debug": True}
    logging.normalize(settings)
    assert settings == {
        "log_options": {"compress": "true", "tag": "{{.Name}}=x"},
        "debug": True,
    }


@pytest.mark.parametrize("text", ["compress", "=x", ""])
def test_an_option_without_a_value_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid log option"):
        logging.normalize({"log_opt": (text,)})


def test_values_in_the_file_must_be_strings() -> None:
    keys = logging.keys()
    assert keys["log-opts"].read("log-opts", {"max-file": "5"}) == {"log_opt": ("max-file=5",)}
    with pytest.raises(InvalidRequest, match="log-opts: max-file"):
        keys["log-opts"].read("log-opts", {"max-file": 5})


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"log_format": "xml"}, "invalid log format: xml"),
        ({"log_level": "loud"}, "invalid logging level: loud"),
        ({"log_level": ""}, "invalid logging level: "),
    ],
)
def test_an_unknown_format_or_level_of_the_engines_log_is_refused(
    settings: dict[str, object], text: str
) -> None:
    with pytest.raises(InvalidRequest, match=text):
        logging.normalize(settings)


@pytest.mark.parametrize("level", ["debug", "info", "warn", "warning", "error", "fatal"])
def test_the_levels_are_those_of_dockerd(level: str) -> None:
    settings: dict[str, object] = {"log_level": level, "log_format": "json"}
    logging.normalize(settings)
    assert settings == {"log_level": level, "log_format": "json"}
