"""Kubernetes' YAML on one host: documents, what they ask for, and the way back. Pure."""
