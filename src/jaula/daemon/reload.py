"""Reload the configuration at SIGHUP, as dockerd does.

Source: docker docs, "dockerd", section "Configuration reload behavior". The policy and the TLS
files are read again too. If anything is invalid, nothing changes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from jaula.daemon import engine_log, load_policy
from jaula.engine.containers import log_config, presets
from jaula.errors import JaulaError

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

    from jaula.api.http.tls_listener import TlsListener
    from jaula.config import EngineConfig, TlsConfig
    from jaula.engine.authz.gateway import Gateway
    from jaula.engine.engine import Engine

RELOADED = (
    *("debug", "default_profile", "default_runtime", "runtimes", "runtime_timeout", "registry"),
    *("log_driver", "log_level", "log_max_size", "log_max_file", "log_options", "metrics_labels"),
    *("pids_limit", "nofile", "policy", "cri_pinned_images", "cdi_spec_dirs"),
)
"""Fields of the configuration that a running engine adopts. TLS paths are adopted as well."""

_log = logging.getLogger("jaula.engine")


def merge_config(old: EngineConfig, new: EngineConfig) -> tuple[EngineConfig, tuple[str, ...]]:
    """Return the new configuration and the names of fields that need a restart. Pure."""
    changes = {name: getattr(new, name) for name in RELOADED}
    if old.tls is not None and new.tls is not None:
        changes["tls"] = new.tls
    result = msgspec.structs.replace(old, **changes)
    need_restart = [
        name for name in new.__struct_fields__ if getattr(new, name) != getattr(result, name)
    ]
    return result, tuple(need_restart)


def tls_context(files: TlsConfig) -> SSLContext:
    """Return the TLS context of the API server.

    :raises InvalidRequest: when a file is missing or invalid.
    """
    from jaula import feature, tls

    protocols = tuple(name for each in feature.features() for name in each.tls_protocols)
    paths = tls.TlsFiles(files.authority, files.certificate, files.key)
    return tls.server_context(paths, protocols=protocols)


class Reloader:
    """Reloads the configuration of one engine."""

    def __init__(
        self, engine: Engine, gateway: Gateway, read_config: Callable[[], EngineConfig]
    ) -> None:
        self._engine = engine
        self._gateway = gateway
        self._read_config = read_config
        self.tls_listeners: list[TlsListener] = []

    def reload(self) -> None:
        """Adopt the new configuration, and log an error if it is invalid."""
        services = self._engine.services
        try:
            config, need_restart = merge_config(services.config, self._read_config())
            presets.check_name(config.default_profile)
            log_config.check(config)
            policy = load_policy.load_policy(config)
            context = tls_context(config.tls) if config.tls and self.tls_listeners else None
            services.image_policy.load_file(
                load_policy.policy_path(config), required=bool(config.policy)
            )
        except JaulaError as error:
            _log.error("the settings are not reloaded: %s", error)
            return
        self._engine.reconfigure(config)
        self._gateway.follow(policy)
        logging.getLogger().setLevel(engine_log.level(config))
        for listener in self.tls_listeners:
            if context is not None:
                listener.context = context
        if need_restart:
            _log.warning("these settings need a restart of the engine: %s", ", ".join(need_restart))
        _log.info("the settings are reloaded; policy: %s", policy.source)
        services.events.emit(
            "daemon", "reload", services.identity, {"name": services.host.hostname}
        )
