"""Image layers: the store, extraction, and commit of a container's changes."""
