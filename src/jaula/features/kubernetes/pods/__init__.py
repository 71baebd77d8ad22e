"""Pods of Kubernetes: sandboxes, and the containers in them."""
