"""Settings that need a feature: an engine that lacks it refuses to start."""

from __future__ import annotations

from jaula import feature
from jaula.config import EngineConfig

# name of the setting: member of EngineConfig, features
SETTINGS = {
    "cri": ("cri", ("kubernetes",)),
    "metrics-addr": ("metrics", ("metrics",)),
    "metrics-verify-interval": ("metrics_verify_interval", ("metrics", "verify")),
    "web": ("web", ("web",)),
}


def check_features(config: EngineConfig) -> None:
    """Check that the features of the settings are installed.

    :raises InvalidRequest: when one is not.
    """
    for name, (member, owners) in SETTINGS.items():
        if getattr(config, member):
            for owner in owners:
                feature.require(owner, f"the setting {name}")
