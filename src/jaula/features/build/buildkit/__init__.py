"""BuildKit's protocol: ``docker build`` with its defaults, ``docker buildx``, ``compose build``.

:mod:`.server` answers the calls of one ``POST /grpc`` connection, :mod:`.session` makes the calls
on a ``POST /session`` connection. A build is a :class:`~.options.BuildOptions` for the same
use case as ``POST /build``: the builder is the frontend ``dockerfile.v0``, and there is no solver.

An engine loads this package with the first such connection.
"""
