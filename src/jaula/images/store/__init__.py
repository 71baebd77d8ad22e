"""The image store: an OCI image layout with names, blobs, garbage collection and repair."""
