"""``--network`` and related flags, as the API's ``NetworkMode`` and ``EndpointsConfig``."""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.cli.command_parser import Options

_FIELDS = {"ip": "IPv4Address", "ip6": "IPv6Address"}
_NAMES = {
    "alias": "Aliases",
    "mac-address": "MacAddress",
    "link": "Links",
    "driver-opt": "DriverOpts",
    "gw-priority": "GwPriority",
}


def mode(options: Options) -> str:
    """Return the network that is named first."""
    networks = options.texts("network") + options.texts("net")
    return parse(networks[0])[0] if networks else "default"


def documents(options: Options) -> dict[str, Any]:
    """Return ``EndpointsConfig``: every network, the first one with the related flags applied.

    :raises UsageError: when options exclude each other.
    """
    networks = options.texts("network") + options.texts("net") or ["default"]
    endpoints: dict[str, Any] = {}
    for number, word in enumerate(networks):
        name, settings = parse(word)
        if name in endpoints:
            raise UsageError(f'network "{name}" is specified multiple times')
        if len(networks) > 1 and (name in ("host", "none") or name.startswith("container:")):
            raise UsageError(
                "conflicting options: cannot attach both user-defined and non-user-defined"
                " network-modes"
            )
        if number == 0:
            _merge(settings, options)
        endpoints[name] = endpoint(settings)
    first = next(iter(endpoints))
    if first in ("host", "none") or first.startswith("container:"):
        return {}
    return endpoints


def _merge(settings: dict[str, Any], options: Options) -> None:
    values: dict[str, Any] = {
        "alias": options.texts("network-alias"),
        "ip": options.text("ip"),
        "ip6": options.text("ip6"),
        "mac-address": options.text("mac-address"),
    }
    for key, value in values.items():
        if not value:
            continue
        if settings.get(key):
            raise UsageError(
                f"conflicting options: cannot specify both --{_flag(key)} and per-network {key}"
            )
        settings[key] = value


def _flag(key: str) -> str:
    return "network-alias" if key == "alias" else key


def parse(word: str) -> tuple[str, dict[str, Any]]:
    """Parse ``NAME``, or ``name=NAME,alias=A,ip=1.2.3.4`` as Docker does.

    :raises UsageError: when an option is unknown or invalid.
    """
    if "=" not in word:
        return word, {}
    name = ""
    settings: dict[str, Any] = {"alias": []}
    for part in word.split(","):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals:
            raise UsageError(f"invalid network option {part!r}: must be key=value")
        if key == "name":
            name = value
        elif key == "alias":
            settings["alias"].append(value)
        elif key == "driver-opt":
            option, equals, text = value.partition("=")
            if not equals:
                raise UsageError(f"invalid driver-opt {value!r}: must be key=value")
            settings.setdefault("driver-opt", {})[option] = text
        elif key in ("ip", "ip6", "mac-address"):
            settings[key] = value
        elif key == "gw-priority":
            settings[key] = _priority(value)
        else:
            raise UsageError(
                f"invalid network option {key!r}: must be one of"
                " name, alias, ip, ip6, mac-address, driver-opt, gw-priority"
            )
    if not name:
        raise UsageError(f"invalid network {word!r}: name= is missing")
    return name, settings


def _priority(text: str) -> int:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise UsageError(f"invalid gw-priority ({text}): invalid syntax")
    if not -(1 << 63) <= int(text) < 1 << 63:
        raise UsageError(f"invalid gw-priority ({text}): value out of range")
    return int(text)


def endpoint(settings: dict[str, Any]) -> dict[str, Any]:
    """Return ``EndpointSettings``; the keys are those of a value of ``--network``, and link."""
    result: dict[str, Any] = {_NAMES[key]: settings[key] for key in _NAMES if settings.get(key)}
    addresses = {_FIELDS[key]: settings[key] for key in _FIELDS if settings.get(key)}
    if addresses:
        result["IPAMConfig"] = addresses
    return result
