"""Kernel interfaces, one module per facility, under the kernel's names; raise ``OSError``."""
