"""Processes of an engine, killed at random moments and at each of their system calls."""
