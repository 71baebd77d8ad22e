"""Containers that an external OCI runtime such as runc or crun creates."""
