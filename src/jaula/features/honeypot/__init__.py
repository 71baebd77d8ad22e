"""Honeypots: containers without a way out, whose sessions, connections and files are kept.

A hook of the container's start runs :mod:`jaula.features.honeypot.supervisor`, which stays until
the container has exited. It records system calls (:mod:`jaula.features.record`), keeps written
files (:mod:`jaula.features.honeypot.written_files`), and is the parent of the sink
(:mod:`jaula.features.honeypot.sink`): the other end of the container's only network link.
"""
