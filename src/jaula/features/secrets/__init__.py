"""Secrets and configs: records, use cases, mounts."""
