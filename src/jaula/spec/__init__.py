"""Typed documents of files, sockets and the API, and parsers of Docker's notations. No I/O."""
