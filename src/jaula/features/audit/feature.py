"""The feature ``audit``: its commands and routes."""

from __future__ import annotations

from jaula.feature import Feature

FEATURE = Feature(
    "audit",
    commands={
        "audit": "cli.audit",
        "audit diff": "cli.audit_diff",
        "image audit": "cli.image_audit",
    },
    groups={
        "audit": "Compare reports of audits",
    },
)
