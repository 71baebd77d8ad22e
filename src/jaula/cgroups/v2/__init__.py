"""cgroup version 2: one tree for every controller."""
