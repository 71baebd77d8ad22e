"""Readers of json-file logs: stored entries, tail and follow."""
