"""Translations of help pages, help topics and the tour."""
