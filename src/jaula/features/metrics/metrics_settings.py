"""``--metrics-*``: address of ``/metrics``, labels, verification, refusals. Pure.

Source: docker docs, "dockerd", ``--metrics-addr``. Unlike dockerd, an address without a host is one
of the loopback interface.
"""

from __future__ import annotations

from typing import Any

from jaula.config import METRICS_LABELS
from jaula.errors import InvalidRequest

KEYS = ("metrics_addr", "metrics_label", "metrics_verify_interval", "metrics_refusals")
SOURCES = ("audit", "ebpf", "none")
MAX_LABELS = 32
MIN_INTERVAL = 10  # seconds; a verification takes a processor
_MAX_LABEL = 128  # characters


def normalize(settings: dict[str, Any], *, rootless: bool) -> None:
    """Convert the settings to fields of ``EngineConfig``, in place.

    :raises InvalidRequest: when one is not valid.
    """
    if address := settings.pop("metrics_addr", ""):
        if rootless:
            raise InvalidRequest(
                "a rootless engine runs in a network namespace of its own, where no client can"
                " reach --metrics-addr",
                hint="read /metrics on its unix socket",
            )
        settings["metrics"] = parse_address(address)
    if labels := settings.pop("metrics_label", ()):
        settings["metrics_labels"] = tuple(dict.fromkeys((*METRICS_LABELS, *labels)))
        _check_labels(settings["metrics_labels"])
    interval = settings.get("metrics_verify_interval", 0)
    if interval and interval < MIN_INTERVAL:
        raise InvalidRequest(
            f"--metrics-verify-interval {interval} must be at least {MIN_INTERVAL} seconds",
            hint="with 0 no container is verified",
        )
    if (source := settings.get("metrics_refusals", SOURCES[0])) not in SOURCES:
        raise InvalidRequest(
            f"--metrics-refusals {source[:40]!r} must be one of {', '.join(SOURCES)}"
        )


def parse_address(text: str) -> tuple[str, int]:
    """Return address and port of ``HOST:PORT``, ``:PORT`` or ``PORT``.

    :raises InvalidRequest: when it is not valid. Names are refused, as for ``--host``.
    """
    import ipaddress

    host, _, port = text.rpartition(":")
    host = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host)
    try:
        address = str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise InvalidRequest(
            f"--metrics-addr {text[:80]!r}: {host[:80]!r} is not an IP address",
            hint="use an address such as 127.0.0.1:9323",
        ) from None
    if not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        raise InvalidRequest(
            f"--metrics-addr {text[:80]!r}: {port[:20]!r} is not a valid port",
            hint="use an address such as 127.0.0.1:9323",
        )
    return address, int(port)


def _check_labels(labels: tuple[str, ...]) -> None:
    if len(labels) > MAX_LABELS:
        raise InvalidRequest(
            f"--metrics-label is set {len(labels)} times, with the default ones",
            hint=f"{MAX_LABELS} labels are possible: each one makes every sample longer",
        )
    for label in labels:
        if not label or len(label) > _MAX_LABEL or not label.isprintable():
            raise InvalidRequest(f"--metrics-label {label[:80]!r} is not a name of a label")
