"""Processes that parse the bytes of registries, clients, images and guests, without privilege.

:mod:`~.worker` is the engine's side: it starts such a process, sends it work, and ends it.
:mod:`~.program` is what the process runs, and :mod:`~.confinement` is how it gives everything up.
"""
