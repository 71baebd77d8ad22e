"""Images: references, the content store, archives, and images made from the host's package mirror.

Knows no container: what is in use is told by the caller.
"""
