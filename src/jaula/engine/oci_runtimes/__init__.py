"""The OCI runtimes that an operator configured, and containers that run in one of them."""
