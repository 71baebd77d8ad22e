"""The feature ``record``: records of what containers do."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "record",
    routes={"jaula/containers": ("routes",)},
    run_flags={"record": "cli.record_process"},
    commands={
        "record": "cli.record",
        "record diff": "cli.record_diff",
        "record export": "cli.record_export",
        "record show": "cli.record_show",
        "record verify": "cli.record_verify",
    },
    groups={
        "record": "Show, compare and verify records of containers",
    },
)
