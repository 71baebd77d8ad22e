"""Containers that are created by another OCI runtime, such as runc or crun."""
