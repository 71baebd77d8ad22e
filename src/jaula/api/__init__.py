"""The Docker Engine API, versions 1.24 to 1.45, on the sockets that the daemon hands over.

This layer reads requests and writes answers. It checks the form of what it is sent (HTTP, JSON,
types, sizes); what a request means, and every rule about containers, is :mod:`jaula.engine`'s.
"""

from jaula.api.http.server import Server, serve

__all__ = ["Server", "serve"]
