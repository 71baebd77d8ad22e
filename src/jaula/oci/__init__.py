"""``jaula-runtime``, an OCI runtime's command line: one file per command below ``commands``.

Follows the runtime specification's ``runtime.md`` for the operations. Flags and messages are those
of runc, which callers know.
"""
