"""The client of image registries: pull, push, log in, search.

Follows the OCI distribution specification 1.1 and the Docker registry API v2. Everything here is
synchronous and runs in threads of its own; nothing that a registry sends is believed before its
digest was compared, and credentials leave for nobody but the registry that they are for.
"""
