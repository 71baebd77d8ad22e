"""Rootless engines: the user and network namespace of an ordinary user's engine.

The engine runs as user 0 of a user namespace that maps the user's own id and the user's ranges of
/etc/subuid and /etc/subgid, with a network namespace of its own. A small process, the namespace
holder, keeps both alive while an engine or a container uses them (``rootlesskit`` has this part in
Docker's rootless mode).
"""
