"""The forms of a report: a table for people, JSON, SARIF 2.1.0, one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaula.audit.reports import document, page, sarif, text
from jaula.audit.reports.report import Report

FORMATS: dict[str, Callable[[Sequence[Report]], str]] = {
    "table": text.render,
    "json": document.render,
    "sarif": sarif.render,
    "html": page.render,
}
"""By the word of ``--format``."""
