"""Image archives: ``docker load``, ``docker save`` and ``docker import``."""
