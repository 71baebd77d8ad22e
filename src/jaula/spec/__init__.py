"""Typed documents that cross a border: files, sockets and the API. No behaviour, no I/O."""
