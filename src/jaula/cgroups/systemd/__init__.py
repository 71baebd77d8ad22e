"""Cgroups that systemd makes and owns: a transient scope for each container."""
