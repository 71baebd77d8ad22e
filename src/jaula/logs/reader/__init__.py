"""Readers of logs in files: stored entries, tail and follow."""
