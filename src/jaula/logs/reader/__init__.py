"""Readers of log files: rotated sets, positions, follow."""
