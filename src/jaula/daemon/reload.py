"""Settings that change while the engine runs: SIGHUP, as dockerd has it.

Source: docker docs, "dockerd", section "Configuration reload behavior". The policy and the files of
TLS are read again too. What cannot be read leaves everything as it was.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from jaula import tls
from jaula.daemon import policy as daemon_policy
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
    *("log_driver", "log_max_size", "log_max_file", "log_options"),
    *("pids_limit", "nofile", "policy"),
)
"""Fields of the configuration that a running engine takes over; paths of TLS are, too."""

_log = logging.getLogger("jaula.engine")


def merged(old: EngineConfig, new: EngineConfig) -> tuple[EngineConfig, tuple[str, ...]]:
    """What the engine works with from now on, and the fields that need a restart. Pure."""
    taken = {name: getattr(new, name) for name in RELOADED}
    if old.tls is not None and new.tls is not None:
        taken["tls"] = new.tls
    result = dataclasses.replace(old, **taken)
    late = [
        f.name for f in dataclasses.fields(new) if getattr(new, f.name) != getattr(result, f.name)
    ]
    return result, tuple(late)


def context_of(files: TlsConfig) -> SSLContext:
    """The server's side of TLS. Raises ``InvalidRequest``."""
    return tls.server_context(tls.TlsFiles(files.authority, files.certificate, files.key))


class Reloader:
    """Does it for one engine."""

    def __init__(self, engine: Engine, doors: Gateway, reread: Callable[[], EngineConfig]) -> None:
        self._engine = engine
        self._doors = doors
        self._reread = reread
        self.entrances: list[TlsListener] = []

    def now(self) -> None:
        """Take over what can be; what is wrong is logged."""
        parts = self._engine.parts
        try:
            config, late = merged(parts.config, self._reread())
            presets.check_name(config.default_profile)
            log_config.check(config)
            policy = daemon_policy.policy(config)
            context = context_of(config.tls) if config.tls and self.entrances else None
            parts.gate.load_file(daemon_policy.path_of(config), required=bool(config.policy))
        except JaulaError as error:
            _log.error("the settings are not reloaded: %s", error)
            return
        self._engine.reconfigure(config)
        self._doors.follow(policy)
        logging.getLogger().setLevel(logging.DEBUG if config.debug else logging.INFO)
        for entrance in self.entrances:
            if context is not None:
                entrance.context = context
        if late:
            _log.warning("these settings need a restart of the engine: %s", ", ".join(late))
        _log.info("the settings are reloaded; policy: %s", policy.source)
        parts.events.emit("daemon", "reload", parts.identity, {"name": parts.host.hostname})
