"""Diagnostics of containers that other processes make: the observer, and commands of the CLI.

Checks, samples and traces read the kernel as root and take processor time. They run as children of
the engine, so its event loop only passes their documents on, and decides who may have them.
"""
