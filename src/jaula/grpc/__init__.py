"""gRPC over a socket that is handed over: the transport, for servers and for clients.

:mod:`.connection` is HTTP/2 with its ceilings, :mod:`.server` answers calls and :mod:`.client`
makes them. No service is defined here. An engine loads this package with the first gRPC connection.
"""
