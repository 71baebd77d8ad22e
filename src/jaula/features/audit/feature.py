"""The feature ``audit``: the controls of ``jaula audit``."""

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
