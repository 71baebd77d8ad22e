"""Network settings: their keys in ``daemon.json``, and the values of the flags.

Source: docker docs, "dockerd": ``ip``, ``ipv6``, ``fixed-cidr-v6``, ``default-address-pools``.
``publish-past-firewall`` is the engine's own.

The zygote shares what is imported here with every shim. So the package of networks is imported only
for a setting that it checks.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.daemon.config.setting import Setting


def normalize(settings: dict[str, object]) -> None:
    """Convert the network settings to fields of ``EngineConfig``, in place.

    :raises InvalidRequest: when a setting is invalid.
    """
    from jaula.errors import InvalidRequest

    if "ip" in settings:
        import ipaddress

        text = str(settings.pop("ip"))
        try:
            settings["host_binding"] = str(ipaddress.ip_address(text))
        except ValueError as error:
            raise InvalidRequest(f"invalid --ip: {error}") from None
    settings["bridge_ipv6"] = bool(settings.pop("ipv6", False))
    if "fixed_cidr_v6" in settings:
        text = str(settings.pop("fixed_cidr_v6"))
        if not settings["bridge_ipv6"]:
            raise InvalidRequest("--fixed-cidr-v6 requires --ipv6")
        from jaula.network.ipam import parse_subnet6

        settings["bridge_subnet6"] = str(parse_subnet6(text))
    if values := settings.pop("default_network_opt", ()):
        settings["network_options"] = _options(values)
    if "address_pool" in settings:
        from jaula.network.ipam import parse_pools

        parse_pools(str(settings["address_pool"]))


def _options(values: object) -> dict[str, str]:
    """Parse ``bridge=KEY=VALUE`` options.

    :raises InvalidRequest: when an option is malformed.
    """
    from jaula.errors import InvalidRequest

    result = {}
    for text in values if isinstance(values, list | tuple) else ():
        driver, _, option = str(text).partition("=")
        key, equals, value = option.partition("=")
        if driver != "bridge" or not key or not equals:
            raise InvalidRequest(
                f"invalid default network option {text!r}", hint="write bridge=KEY=VALUE"
            )
        result[key] = value
    return result


def keys() -> dict[str, Setting]:
    """Return the keys of ``daemon.json``."""
    from jaula.daemon.config import setting

    return {
        "default-address-pools": setting.Setting(("address-pool",), _pools),
        "ip": setting.Setting(("ip",), lambda key, value: {"ip": setting.read_string(key, value)}),
        "default-network-opts": setting.Setting(("default-network-opt",), _network_opts),
        "ipv6": setting.Setting(("ipv6",), _switch("ipv6")),
        "fixed-cidr-v6": setting.Setting(
            ("fixed-cidr-v6",),
            lambda key, value: {"fixed_cidr_v6": setting.read_string(key, value)},
        ),
        "publish-past-firewall": setting.Setting(
            ("publish-past-firewall",), _switch("publish_past_firewall")
        ),
    }


def _switch(field: str) -> Callable[[str, object], dict[str, object]]:
    def read(key: str, value: object) -> dict[str, object]:
        from jaula.errors import InvalidRequest

        if not isinstance(value, bool):
            raise InvalidRequest(f"{key}: expected true or false, not {str(value)[:80]}")
        return {field: value}

    return read


def _network_opts(key: str, value: object) -> dict[str, object]:
    from jaula.daemon.config import setting

    options = setting.read_object(key, value, ("bridge",)).get("bridge", {})
    rows = setting.read_object(f"{key}: bridge", options).items()
    result = [f"bridge={name}={setting.read_string(f'{key}: {name}', text)}" for name, text in rows]
    return {"default_network_opt": tuple(result)}


def _pools(key: str, value: object) -> dict[str, object]:
    from jaula.daemon.config import setting
    from jaula.errors import InvalidRequest
    from jaula.network.ipam import address_pool

    if not isinstance(value, list) or not value:
        raise InvalidRequest(f"{key}: expected a list of pools, not {str(value)[:80]}")
    result = []
    for item in value:
        pool = setting.read_object(key, item, ("base", "size"))
        base = setting.read_string(f"{key}: base", pool.get("base"))
        size = setting.read_integer(f"{key}: size", pool["size"]) if "size" in pool else None
        try:
            validated = address_pool(base, size)
        except InvalidRequest as error:
            raise InvalidRequest(f"{key}: {error.message}", hint=error.hint) from None
        result.append(f"{validated.base}@{validated.size}")
    return {"address_pool": ",".join(result)}
