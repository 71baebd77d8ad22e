"""The feature ``report``: the page of a container."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "report",
    commands={
        "report": "report_cli",
    },
)
