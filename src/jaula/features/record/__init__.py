"""Records: what the processes of a container did, as evidence from the kernel.

``document`` is the format, ``writer`` and ``reader`` its file, ``recorder`` the use case, and
``ebpf`` the mechanism. docs/record.md describes the format and its limits.
"""
