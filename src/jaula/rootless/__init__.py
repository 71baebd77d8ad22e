"""An ordinary user's engine: namespaces in which it is root, and what joins them to outside.

The engine runs as user 0 of a user namespace that holds the user's own id and the user's ranges of
/etc/subuid and /etc/subgid, with a network namespace of its own. A small process, the keeper, holds
both for as long as an engine or a container uses them.
"""
