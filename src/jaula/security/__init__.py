"""Restrictions of a container's processes beyond namespaces. The runtime applies the decisions."""
