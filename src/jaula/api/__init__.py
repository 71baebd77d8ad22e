"""The Docker Engine API, versions 1.24 to 1.55, on sockets that the daemon opens.

This layer reads requests and writes answers. It checks the form of a request (HTTP, JSON, types,
sizes). :mod:`jaula.engine` defines what a request means, and every rule about containers.
"""

from jaula.api.http.api_server import Server, serve

__all__ = ["Server", "serve"]
