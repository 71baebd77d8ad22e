"""Images: use cases on the image store and registries."""
