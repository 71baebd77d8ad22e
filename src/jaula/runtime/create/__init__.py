"""Create a container from a spec: the part that runs with the parent's privileges."""
