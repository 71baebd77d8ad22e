"""The feature ``web``: the web view."""

from __future__ import annotations

from jaula.feature import Feature, Hook

FEATURE = Feature(
    "web",
    commands={
        "web": "web_cli",
    },
    hooks=(
        Hook("engine_started", "web_process:start", lambda config: bool(config.web)),
        Hook("user_named", "logins:origin_of"),
    ),
    routes={
        "jaula/web": ("routes",),
    },
)
