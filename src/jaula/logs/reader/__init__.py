"""Readers of json-file logs: rotated files, positions, tail and follow."""
