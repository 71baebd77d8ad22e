"""cgroup version 1: a hierarchy for each controller (or several sharing one)."""
