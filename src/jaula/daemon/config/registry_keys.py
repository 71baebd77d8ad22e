"""Registry settings: their keys in ``daemon.json``, and the values of the flags.

Source: docker docs, "dockerd"; ``registry-realms`` and ``registry-certs`` are the engine's own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.config import RegistryConfig
    from jaula.daemon.config.setting import Setting


_FIELDS = {
    "insecure_registry": "insecure",
    "registry_mirror": "mirrors",
    "registry_realm": "realms",
    "registry_certs": "certificates",
    "max_concurrent_downloads": "downloads",
    "max_concurrent_uploads": "uploads",
    "http_proxy": "http_proxy",
    "https_proxy": "https_proxy",
    "no_proxy": "no_proxy",
}
_FILE_LISTS = {
    "insecure-registries": "insecure_registry",
    "registry-mirrors": "registry_mirror",
    "registry-realms": "registry_realm",
}
_PROXIES = ("http-proxy", "https-proxy", "no-proxy")


def pop_registry_config(settings: dict[str, object]) -> RegistryConfig:
    """Remove the registry settings from ``settings`` and return them.

    :raises InvalidRequest: when a setting is invalid.
    """
    from jaula.config import RegistryConfig
    from jaula.rootless import xdg_paths

    fields: dict[str, Any] = {
        field: settings.pop(name) for name, field in _FIELDS.items() if name in settings
    }
    is_set = bool(fields)
    if "certificates" in fields:
        fields["certificates"] = fields["hosts"] = (str(fields["certificates"]),)
    elif xdg_paths.rootless_uid() is not None:
        # The engine cannot tell root's files from those of other users.
        fields["hosts"] = _user_certificates()
        fields["certificates"] = (*fields["hosts"], *RegistryConfig().certificates)
    config = RegistryConfig(**fields)
    if is_set:
        from jaula.images.registry import registry_hosts
        from jaula.images.registry.http import proxy_choice

        registry_hosts.Hosts(config)
        proxy_choice.configured_proxies(config.http_proxy, config.https_proxy, config.no_proxy, {})
    return config


def _user_certificates() -> tuple[str, ...]:
    """Return a user's certificate directories, as Docker's rootless mode has them."""
    from os import path

    from jaula.rootless import xdg_paths as rootless_paths

    base = path.dirname(path.dirname(rootless_paths.config_file()))
    return (f"{base}/jaula/certs.d", f"{base}/docker/certs.d")


def keys() -> dict[str, Setting]:
    """Return the keys of ``daemon.json``."""
    from jaula.daemon.config import setting

    def texts(key: str, value: object) -> dict[str, object]:
        return {_FILE_LISTS[key]: tuple(setting.read_strings(key, value))}

    def number(key: str, value: object) -> dict[str, object]:
        return {key.replace("-", "_"): setting.read_integer(key, value)}

    def certificates(key: str, value: object) -> dict[str, object]:
        return {"registry_certs": setting.read_string(key, value)}

    def proxies(key: str, value: object) -> dict[str, object]:
        fields = setting.read_object(key, value, _PROXIES)
        return {
            name.replace("-", "_"): setting.read_string(f"{key}: {name}", text)
            for name, text in fields.items()
        }

    return {
        **{
            key: setting.Setting((field.replace("_", "-"),), texts)
            for key, field in _FILE_LISTS.items()
        },
        "registry-certs": setting.Setting(("registry-certs",), certificates),
        "max-concurrent-downloads": setting.Setting(("max-concurrent-downloads",), number),
        "max-concurrent-uploads": setting.Setting(("max-concurrent-uploads",), number),
        "proxies": setting.Setting(_PROXIES, proxies),
    }
