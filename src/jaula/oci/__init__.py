"""The command line of an OCI runtime: one file per command below ``commands``.

Follows the runtime specification's ``runtime.md`` for the operations, and for flags and texts the
runtimes that callers know.
"""
