"""Report formats of both audits: a table, JSON, SARIF 2.1.0, JUnit, one HTML page."""

from __future__ import annotations

from collections.abc import Callable

from jaula.features.audit.benchmark.assessment import Assessment
from jaula.features.audit.benchmark.reports import html, json, junit, sarif, text

FORMATS: dict[str, Callable[[Assessment], str]] = {
    "table": text.render,
    "json": json.render,
    "sarif": sarif.render,
    "junit": junit.render,
    "html": html.render,
}
"""Formats by the value of ``--format``."""
