"""A field of a line of comma-separated values (RFC 4180), as in the value of ``--mount``. Pure."""

from __future__ import annotations


def quoted(field: str) -> str:
    """Return a field; one with a comma, a quote or a line break is in quotes."""
    return '"' + field.replace('"', '""') + '"' if set(field) & set(',"\r\n') else field
