"""Every option of every log driver, with what it makes the engine or the shim touch."""

from __future__ import annotations

import pytest

from jaula.engine import relaxations
from jaula.engine.containers.resolved_request import resolve
from jaula.errors import InvalidRequest
from jaula.logs import NAMES, validate
from jaula.spec.api_documents import ContainerCreate, HostConfig, LogConfig

NOTHING = ""
"""The option is a number, a word of a list, or text that becomes part of a message."""

_FILES = {"max-size": NOTHING, "max-file": NOTHING, "compress": NOTHING}
_SENDING = {
    "tag": NOTHING,
    "mode": NOTHING,
    "max-buffer-size": NOTHING,
    "container-id": "set by the engine",
    "container-name": "set by the engine",
}
_ATTRIBUTES = {
    **dict.fromkeys(("labels", "labels-regex", "env", "env-regex"), NOTHING),
    "attributes": "set by the engine",
}
_FLUENTD = (
    *("fluentd-async", "fluentd-async-reconnect-interval", "fluentd-buffer-limit"),
    *("fluentd-max-retries", "fluentd-request-ack", "fluentd-retry-wait"),
    *("fluentd-sub-second-precision", "fluentd-write-timeout"),
)
_GELF = (
    *("gelf-compression-type", "gelf-compression-level"),
    *("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"),
)
EFFECTS: dict[str, dict[str, str]] = {
    "none": {},
    "local": _FILES,
    "json-file": _FILES
    | {"labels": NOTHING, "labels-regex": NOTHING, "env": NOTHING, "env-regex": NOTHING}
    | {"tag": NOTHING, "attributes": "set by the engine"},
    "journald": _SENDING,
    "fluentd": _SENDING
    | _ATTRIBUTES
    | dict.fromkeys(_FLUENTD, NOTHING)
    | {"fluentd-address": "log-address=tcp://127.0.0.1:1", "outside-only": "set by the engine"},
    "gelf": _SENDING
    | _ATTRIBUTES
    | dict.fromkeys(_GELF, NOTHING)
    | {"gelf-address": "log-address=tcp://127.0.0.1:1", "outside-only": "set by the engine"},
    "syslog": _SENDING
    | {"syslog-facility": NOTHING, "syslog-format": NOTHING, "syslog-tls-skip-verify": NOTHING}
    | {"outside-only": "set by the engine"}
    | {
        "syslog-address": "log-address=tcp://127.0.0.1:1",
        "syslog-tls-ca-cert": "host-mount=/file:ro",
        "syslog-tls-cert": "host-mount=/file:ro",
        "syslog-tls-key": "host-mount=/file:ro",
    },
}
"""Nothing, who sets it, or the privilege that a request with it needs."""


@pytest.mark.parametrize("driver", NAMES)
def test_every_option_has_a_known_effect(driver: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        validate(driver, {"no-such-option": "x"})
    names = (error.value.hint or "").removeprefix("known are ").split(", ")
    assert set(names) - {"it has no options"} == set(EFFECTS[driver])


@pytest.mark.parametrize(
    ("driver", "option", "privilege"),
    [
        (driver, option, effect)
        for driver, options in EFFECTS.items()
        for option, effect in options.items()
        if effect.startswith(("log-address", "host-mount"))
    ],
)
def test_an_option_that_touches_the_host_is_a_privilege(
    driver: str, option: str, privilege: str
) -> None:
    value = "tcp://127.0.0.1:1" if option.endswith("-address") else "/file"
    log = LogConfig(type=driver, config={option: value})
    body = ContainerCreate(host_config=HostConfig(log_config=log))
    assert [str(p) for p in relaxations.of_request(body, resolve(body))] == [privilege]
