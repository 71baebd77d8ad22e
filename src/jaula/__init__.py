"""A Linux container engine: Docker's commands and API, isolated by default, able to prove it."""

__version__ = "0.2.0"
