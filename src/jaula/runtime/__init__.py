"""Turns an OCI runtime spec into a process, and keeps it company until it ends.

Knows no images, names or API. The parts it needs from elsewhere (cgroups, logs, seccomp programs)
come in through :mod:`jaula.runtime.interfaces`.
"""
