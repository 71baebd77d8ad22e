"""The feature ``metrics``: ``/metrics`` and its address."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.config import EngineConfig


def _has_address(config: EngineConfig) -> bool:
    return config.metrics is not None


def _verifies(config: EngineConfig) -> bool:
    return config.metrics_verify_interval > 0


FEATURE = Feature(
    "metrics",
    idle=("hooks",),
    hooks=(
        Hook("listen", "metrics_listener:listen", _has_address),
        Hook("engine_started", "metrics_listener:start", _has_address),
        Hook("engine_started", "verification:start", _verifies),
        Hook("engine_stopping", "hooks:close"),
    ),
    settings={"metrics_": "metrics_settings:normalize"},
    routes={
        "metrics": ("routes",),
    },
)
