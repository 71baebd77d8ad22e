"""The use cases of images: the image store, registries, trust."""
