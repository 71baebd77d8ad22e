"""Honeypots: containers without a way out, whose sessions, connections and files are kept.

A hook of the container's start runs :mod:`jaula.honeypot.supervisor`, which stays until the
container has exited. It records system calls (:mod:`jaula.record`), keeps written files
(:mod:`jaula.honeypot.files`), and is the parent of the sink (:mod:`jaula.honeypot.sink`): the other
end of the container's only network link.
"""
