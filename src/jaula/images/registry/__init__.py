"""The client of image registries: pull, push, log in, search.

Follows the OCI distribution specification 1.1 and the Docker registry API v2. All code is
synchronous and runs in its own threads. Data from a registry is not trusted before its digest is
verified. Credentials are sent only to the registry that they belong to.
"""
