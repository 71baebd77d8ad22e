"""A container engine for Linux: Docker's commands and API, isolated by default and verifiable."""

__version__ = "0.2.0"
