"""Volumes and mounts of containers."""
