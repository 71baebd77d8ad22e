"""The feature ``honeypot``: the preset, the supervisor of each start, a check of ``verify``."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.api_documents import HostConfig


def _asks(host: HostConfig) -> bool:
    return host.profile == "honeypot"


FEATURE = Feature(
    "honeypot",
    presets={"honeypot": "honeypot_container:complete"},
    hooks=(
        Hook("request_resolved", "honeypot_container:check", _asks),
        Hook("spec_built", "honeypot_container:supervise", _asks),
        Hook("before_start", "honeypot_container:record_sessions", _asks),
        Hook("start_failed", "honeypot_container:discard", _asks),
        Hook("before_removal", "honeypot_container:wait", _asks),
    ),
    shows_record="honeypot_cli:show_run",
    checks=("network_check",),
)
