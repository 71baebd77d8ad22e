"""Image layers: store, extraction, commit of a container's changes."""
