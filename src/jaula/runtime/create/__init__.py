"""Create a container's first process: namespaces, root file system, devices, cgroup, clone."""
