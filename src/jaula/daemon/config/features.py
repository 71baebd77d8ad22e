"""Settings that need a feature: an engine that lacks it refuses to start."""

from __future__ import annotations

from jaula import feature
from jaula.config import EngineConfig
from jaula.errors import InvalidRequest

# name of the setting: member of EngineConfig, feature
SETTINGS = {
    "cri": ("cri", "kubernetes"),
    "metrics-addr": ("metrics", "metrics"),
    "metrics-verify-interval": ("metrics_verify_interval", "verify"),
    "web": ("web", "web"),
}


def check_features(config: EngineConfig) -> None:
    """Check that the features of the settings are installed.

    :raises InvalidRequest: when one is not.
    """
    for name, (member, owner) in SETTINGS.items():
        if getattr(config, member) and feature.load(owner) is None:
            raise InvalidRequest(
                f"the setting {name} needs the feature {owner}, which is not installed",
                hint="remove the setting, or install all of jaula",
            )
