"""Containers: one module for each use case."""
