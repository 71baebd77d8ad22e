"""The feature ``honeypot``: the preset, the supervisor of each start, a check of ``verify``."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.api import HostConfig


def _asks(host: HostConfig) -> bool:
    return host.profile == "honeypot"


FEATURE = Feature(
    "honeypot",
    presets={"honeypot": "container:complete"},
    hooks=(
        Hook("request_resolved", "container:check", _asks),
        Hook("spec_built", "container:supervise", _asks),
        Hook("before_start", "container:record_sessions", _asks),
        Hook("start_failed", "container:discard", _asks),
        Hook("before_removal", "container:wait", _asks),
    ),
    shows_record="cli:show_run",
    checks=("network_check",),
)
