"""Kubernetes: CRI, CNI, pods, and YAML on one host."""
