"""Report formats: a table for a terminal, JSON, SARIF 2.1.0, one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaula.features.verify.reports import html, json, sarif, text
from jaula.features.verify.reports.report import Report

FORMATS: dict[str, Callable[[Sequence[Report]], str]] = {
    "table": text.render,
    "json": json.render,
    "sarif": sarif.render,
    "html": html.render,
}
"""Formats by the value of ``--format``."""
