"""Private instances of podman, containerd, dockerd and buildah, which call an OCI runtime."""
