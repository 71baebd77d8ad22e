"""The runtime: create a process from an OCI runtime spec and supervise it until it exits.

It knows no images, names or API. :mod:`jaula.runtime.interfaces` declares what it needs from other
packages (cgroups, logs, seccomp programs).
"""
