"""Build images from a Dockerfile: the language, the build context, ``COPY`` and ``ADD``."""
