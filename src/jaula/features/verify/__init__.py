"""Audit: ``jaula verify``, ``jaula audit``, ``jaula check`` and ``jaula tree``."""
