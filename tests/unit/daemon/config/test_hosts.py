"""``--host`` and ``--tls*``: never TCP without authenticated clients."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.cli import command_parser, daemon
from jaula.config import EngineConfig, TlsConfig
from jaula.daemon.config import api_sockets
from jaula.errors import InvalidRequest

VERIFIED = {"tlsverify": True}
LOOPBACK = ("127.0.0.1", 2375)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, {"tcp": ()}),
        ({"hosts": ("unix:///run/x.sock",)}, {"tcp": (), "socket": "/run/x.sock"}),
        ({"hosts": ("fd://",)}, {"tcp": ()}),
        ({"hosts": ("tcp://127.0.0.1:2375",), "insecure_tcp": True}, {"tcp": (LOOPBACK,)}),
        ({"hosts": ("tcp://localhost",), "insecure_tcp": True}, {"tcp": (LOOPBACK,)}),
        ({"hosts": ("tcp://",), "insecure_tcp": True}, {"tcp": (LOOPBACK,)}),
        ({"hosts": ("tcp://[::1]:99",), "insecure_tcp": True}, {"tcp": (("::1", 99),)}),
        (
            {"hosts": ("tcp://0.0.0.0", "tcp://[::]:5"), "tlscacert": "/a", **VERIFIED},
            {
                "tcp": (("0.0.0.0", 2376), ("::", 5)),
                "tls": TlsConfig("/a", "/etc/jaula/tls/cert.pem", "/etc/jaula/tls/key.pem"),
            },
        ),
    ],
)
def test_listen_settings_are_parsed(settings: dict[str, Any], found: dict[str, object]) -> None:
    assert api_sockets.pop_listen_settings(settings) == found
    assert settings == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hosts": ("tcp://127.0.0.1:2375",)}, "every client that reaches it has access"),
        ({"hosts": ("tcp://0.0.0.0:2375",), "insecure_tcp": True}, "reachable from other hosts"),
        ({"hosts": ("tcp://[::]:2375",), "insecure_tcp": True}, "reachable from other hosts"),
        ({"hosts": ("tcp://10.0.0.1:2376",), "tls": True}, "lets every client in"),
        ({"hosts": ("tcp://10.0.0.1:2376",), "tlscert": "/c", "tlskey": "/k"}, "lets every client"),
        ({"hosts": ("tcp://h.example:1",), **VERIFIED}, "is not an IP address"),
        ({"hosts": ("tcp://1.2.3.4:0",), **VERIFIED}, "is not a valid port"),
        ({"hosts": ("tcp://1.2.3.4:99999",), **VERIFIED}, "is not a valid port"),
        ({"hosts": ("tcp://1.2.3.4:x",), **VERIFIED}, "is not a valid port"),
        ({"hosts": ("ftp://1.2.3.4",)}, "not a valid address"),
        ({"hosts": ("1.2.3.4:5",)}, "not a valid address"),
        ({"hosts": ("unix://relative",)}, "not a valid address"),
        ({"hosts": ("unix:///a", "unix:///b")}, "one unix socket"),
        (VERIFIED, "need a TCP socket"),
        ({"insecure_tcp": True}, "need a TCP socket"),
        ({"hosts": ("tcp://127.0.0.1",), "insecure_tcp": True, **VERIFIED}, "contradict"),
    ],
)
def test_unsafe_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        api_sockets.pop_listen_settings(dict(settings))


def config(*words: str) -> EngineConfig:
    return daemon.read_config(
        command_parser.parse(daemon.COMMAND, ("--config-file", "/dev/null", *words))
    )


def test_flags_are_converted_to_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    made = config("-H", "unix:///run/x.sock", "-H", "tcp://127.0.0.1:1", "--insecure-tcp")
    assert (str(made.socket), made.tcp, made.tls) == ("/run/x.sock", (("127.0.0.1", 1),), None)
    with pytest.raises(InvalidRequest, match="set the same socket"):
        config("--socket", "/run/a.sock", "-H", "unix:///run/b.sock")
