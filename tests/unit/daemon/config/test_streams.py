"""``--stream-*``: on the loopback interface without TLS, on others with TLS only."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.config import StreamConfig
from jaula.daemon.config import daemon_json, stream_settings
from jaula.errors import InvalidRequest

PAIR = {"stream_tls_cert": "/c.pem", "stream_tls_key": "/k.pem"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, StreamConfig("127.0.0.1", 0, 14400, "", "")),
        ({"stream_server_address": "[::1]", "stream_server_port": 99}, StreamConfig("::1", 99)),
        (
            {"stream_server_address": "10.0.0.1", "stream_idle_timeout": 5, **PAIR},
            StreamConfig("10.0.0.1", 0, 5, "/c.pem", "/k.pem"),
        ),
    ],
)
def test_stream_settings_are_parsed(settings: dict[str, Any], expected: StreamConfig) -> None:
    settings["cri"] = True
    assert stream_settings.pop_stream_config(settings) == expected
    assert settings == {"cri": True}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"stream_server_address": "10.0.0.1"}, "without TLS"),
        ({"stream_server_address": "0.0.0.0", **PAIR}, "every interface"),
        ({"stream_server_address": "::", **PAIR}, "every interface"),
        ({"stream_server_address": "node.example"}, "not an IP address"),
        ({"stream_server_address": ""}, "not an IP address"),
        ({"stream_server_port": 65536}, "65536"),
        ({"stream_server_port": -1}, "-1"),
        ({"stream_idle_timeout": 0}, "positive"),
        ({"stream_tls_cert": "/c.pem"}, "required together"),
        ({"stream_tls_key": "/k.pem"}, "required together"),
    ],
)
def test_stream_settings_that_are_not_safe_or_valid_are_refused(
    settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidRequest, match=text):
        stream_settings.pop_stream_config(settings)


def test_flags_and_keys_of_the_file_are_the_same_settings() -> None:
    document = b"""{"stream-server-port": 1, "stream-idle-timeout": 2,
        "stream-server-address": "::1", "stream-tls-cert": "/c", "stream-tls-key": "/k"}"""
    settings, _ = daemon_json.parse(document)
    assert stream_settings.pop_stream_config(settings) == StreamConfig("::1", 1, 2, "/c", "/k")
