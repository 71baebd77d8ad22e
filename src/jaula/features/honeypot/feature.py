"""The feature ``honeypot``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "honeypot",
    checks=("network_check",),
)
