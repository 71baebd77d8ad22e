"""Audit of isolation: ``jaula verify``, ``jaula check`` and ``jaula tree``."""
