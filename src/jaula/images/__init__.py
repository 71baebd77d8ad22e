"""Images: references, the content store, archives, registries, builds and signatures.

This package knows no containers. The caller says which images are in use.
"""
