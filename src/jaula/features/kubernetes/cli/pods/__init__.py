"""Pods of one host: containers that share the namespaces of an infra container."""
