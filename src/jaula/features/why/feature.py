"""The feature ``why``: explanations of refusals."""

from __future__ import annotations

from jaula.feature import Feature, Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.config import EngineConfig


def _counts_refusals(config: EngineConfig) -> bool:
    return config.metrics_refusals != "none"


FEATURE = Feature(
    "why",
    run_flags={"why": "cli.explanations"},
    idle=("refusal_monitor",),
    hooks=(Hook("engine_started", "refusal_monitor:start", _counts_refusals),),
    commands={
        "why": "cli.why",
    },
)
