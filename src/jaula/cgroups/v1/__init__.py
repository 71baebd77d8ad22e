"""Cgroup version 1: a hierarchy per controller, or one that several controllers share."""
