"""What an operator says about registries: flags of the engine, and keys of its configuration file.

Source: docker docs, "dockerd"; ``registry-realms`` and ``registry-certs`` are the engine's own.
"""

from __future__ import annotations

from typing import Any

from jaula.cli import daemon_file
from jaula.cli.flags import Flag
from jaula.config import RegistryConfig

FLAGS = (
    Flag("insecure-registry", "", "list",
         "Registry (HOST[:PORT] or network) that may be spoken to without verified encryption"),
    Flag("registry-mirror", "", "list", "Mirror to ask first for images of Docker Hub (URL)"),
    Flag("registry-realm", "", "list",
         "Token server that may see a registry's credentials (REGISTRY=HOST)"),
    Flag("registry-certs", "", "string", "Directory with a directory of certificates for each "
         "registry (default /etc/jaula/certs.d and /etc/docker/certs.d)", completes="file"),
    Flag("max-concurrent-downloads", "", "int", "Layers that are pulled at a time", default="3"),
    Flag("max-concurrent-uploads", "", "int", "Layers that are pushed at a time", default="5"),
    Flag("http-proxy", "", "string", "Proxy for registries without encryption (URL)"),
    Flag("https-proxy", "", "string", "Proxy for registries (URL)"),
    Flag("no-proxy", "", "string", "Hosts that are reached without the proxy"),
)  # fmt: skip

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


def take(settings: dict[str, object]) -> RegistryConfig:
    """Move what is about registries out of ``settings``. Raises ``InvalidRequest``."""
    found: dict[str, Any] = {
        field: settings.pop(name) for name, field in _FIELDS.items() if name in settings
    }
    if "certificates" in found:
        found["certificates"] = (str(found["certificates"]),)
    config = RegistryConfig(**found)
    if found:
        from jaula.images.registry import hosts, proxies

        hosts.Hosts(config).endpoints("docker.io")
        proxies.configured(config.http_proxy, config.https_proxy, config.no_proxy, {})
    return config


def _texts(field: str) -> Any:
    return lambda key, value: {field: tuple(daemon_file.texts_of(key, value))}


def _proxies(key: str, value: object) -> dict[str, object]:
    names = ("http-proxy", "https-proxy", "no-proxy")
    found = daemon_file.object_of(key, value, names)
    return {
        name.replace("-", "_"): daemon_file.text_of(f"{key}: {name}", text)
        for name, text in found.items()
    }


SETTINGS = {
    "insecure-registries": daemon_file.Setting(("insecure-registry",), _texts("insecure_registry")),
    "registry-mirrors": daemon_file.Setting(("registry-mirror",), _texts("registry_mirror")),
    "registry-realms": daemon_file.Setting(("registry-realm",), _texts("registry_realm")),
    "registry-certs": daemon_file.Setting(
        ("registry-certs",),
        lambda key, value: {"registry_certs": daemon_file.text_of(key, value)},
    ),
    "max-concurrent-downloads": daemon_file.Setting(
        ("max-concurrent-downloads",),
        lambda key, value: {"max_concurrent_downloads": daemon_file.number_of(key, value)},
    ),
    "max-concurrent-uploads": daemon_file.Setting(
        ("max-concurrent-uploads",),
        lambda key, value: {"max_concurrent_uploads": daemon_file.number_of(key, value)},
    ),
    "proxies": daemon_file.Setting(("http-proxy", "https-proxy", "no-proxy"), _proxies),
}
